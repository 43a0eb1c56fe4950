from common.messages.code_version import code_hash, tree_hash


def test_the_code_hash_sees_names_and_contents(tmp_path):
    for package in ("common", "client", "server"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "a.py").write_text("x = 1\n")
    first = tree_hash(tmp_path)
    (tmp_path / "notes.txt").write_text("of no matter")
    (tmp_path / "simulation").mkdir()
    (tmp_path / "simulation" / "a.py").write_text("of no matter to the sites")
    assert tree_hash(tmp_path) == first
    (tmp_path / "client" / "a.py").write_text("x = 2\n")
    changed = tree_hash(tmp_path)
    (tmp_path / "client" / "a.py").rename(tmp_path / "client" / "b.py")
    assert len({first, changed, tree_hash(tmp_path)}) == 3
    assert len(code_hash()) == 64
