from common.messages.code_version import code_hash, travelling, tree_hash


def test_the_code_hash_sees_names_and_contents_of_what_travels(tmp_path):
    for name in ("common/errors.py", "client/round/a.py", "server/run/a.py"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text("x = 1\n")
    first = tree_hash(tmp_path)
    (tmp_path / "notes.txt").write_text("of no matter")
    for name in ("simulation/a.py", "client/doctor/a.py", "server/report/page/a.py"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text("of no matter to the sites")
    assert travelling(tmp_path) == ["client/round/a.py", "common/errors.py", "server/run/a.py"]
    assert tree_hash(tmp_path) == first
    (tmp_path / "client" / "round" / "a.py").write_text("x = 2\n")
    changed = tree_hash(tmp_path)
    (tmp_path / "client" / "round" / "a.py").rename(tmp_path / "client" / "round" / "b.py")
    assert len({first, changed, tree_hash(tmp_path)}) == 3
    assert len(code_hash()) == 64
