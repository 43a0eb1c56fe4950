"""The page's looks: light and dark, from a telephone to a wide screen, and on paper."""

STYLE = """
:root { color-scheme: light dark; --page:#f4f5f3; --paper:#ffffff; --ink:#1b242c; --soft:#5a6772; --line:#dde2e4;
  --own:#0a6a72; --other:#6d7a86; --wash:10 106 114; --wrong:#a8432c; --note:#fbf3dc; --note-ink:#5b4a16; }
@media (prefers-color-scheme: dark) { :root { --page:#10151a; --paper:#182027; --ink:#e7ebed; --soft:#9eabb6;
  --line:#2d3841;
  --own:#58c4c9; --other:#8f9ca8; --wash:88 196 201; --wrong:#f0937a; --note:#2c2715; --note-ink:#ecdca6; } }
* { box-sizing:border-box; }
body { margin:0; background:var(--page); color:var(--ink);
  font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans",sans-serif;
  overflow-wrap:anywhere; -webkit-text-size-adjust:100%; }
main { max-width:1080px; margin:0 auto; padding:40px 24px 56px; }
h1,h2 { font-family:Charter,"Bitstream Charter","Iowan Old Style","Source Serif 4",Georgia,"Noto Serif",serif;
  font-weight:600; text-wrap:balance; }
h1 { font-size:clamp(1.5rem,1.15rem + 1.6vw,2.35rem); line-height:1.22; margin:.35em 0 .5em; max-width:27em;
  letter-spacing:-.01em; }
h3 { font-size:1rem; margin:24px 0 .2em; }
h2 { font-size:1.3rem; line-height:1.3; margin:0 0 .3em; }
p { margin:0 0 .8em; max-width:46em; text-wrap:pretty; } .soft,figcaption { color:var(--soft); }
  small { font-size:.85rem; }
.eyebrow { font-size:.8rem; letter-spacing:.08em; text-transform:uppercase; color:var(--own); font-weight:600;
  margin:0; }
section { background:var(--paper); border:1px solid var(--line); border-radius:12px; padding:24px 26px;
  margin-top:20px; }
.note { background:var(--note); color:var(--note-ink); border-radius:8px; padding:10px 14px; display:inline-block;
  margin:4px 0 0; }
.tiles { display:grid; grid-template-columns:repeat(auto-fit,minmax(168px,1fr)); gap:12px; margin:22px 0 0; }
.tile { background:var(--paper); border:1px solid var(--line); border-radius:12px; padding:14px 16px; }
.tile b { display:block; font-size:1.75rem; line-height:1.25; font-weight:600; font-variant-numeric:tabular-nums; }
.tile:first-child { border-color:var(--own); } .tile:first-child b { color:var(--own); }
.tile span { display:block; font-size:.85rem; color:var(--soft); } .tile .name { color:var(--ink); font-weight:600; }
table { border-collapse:collapse; width:100%; font-variant-numeric:tabular-nums; margin:10px 0 0; }
th,td { text-align:left; padding:8px 12px 8px 0; border-bottom:1px solid var(--line); vertical-align:middle;
  font-weight:400; }
thead th { font-size:.8rem; color:var(--soft); vertical-align:bottom; line-height:1.3; }
  td.num,th.num { text-align:right; }
td.num,.nowrap,.mods thead th { white-space:nowrap; } thead th { overflow-wrap:normal; }
td:last-child,th:last-child { padding-right:0; } tbody th b { font-weight:600; } tbody th small { display:block;
  color:var(--soft); line-height:1.35; }
tr.own th b,tr.own .value { color:var(--own); font-weight:600; } .value { font-weight:600; }
.forest th:first-child { min-width:12em; } .num + :not(.num) { padding-left:18px; }
.forest td.bar { width:30%; min-width:180px; padding-left:10px; padding-right:22px; }
  .forest tr.axis td,.forest tr.axis th { border:0; padding-top:0; }
svg { display:block; overflow:visible; } svg .grid { stroke:var(--line); } svg .zero { stroke:var(--soft);
  stroke-opacity:.6; }
svg .mark { stroke:var(--other); stroke-width:2; fill:var(--other); } svg .own { stroke:var(--own); fill:var(--own);
  stroke-width:2.5; }
svg .tick { fill:var(--soft); font-size:12px; stroke:none; } svg .track { fill:var(--line); }
  svg .fill { fill:var(--own); }
.scroll { overflow-x:auto; } .scroll td { overflow-wrap:break-word; } .scroll tbody th { min-width:6em; }
  .confusion th,.confusion td { padding:8px; } .confusion thead th,.confusion td { text-align:center; }
.confusion thead th { overflow-wrap:anywhere; hyphens:auto; min-width:72px; }
.confusion td.cell { border:2px solid var(--paper); border-radius:8px; min-width:56px; }
  .confusion td.hit { font-weight:700; }
.confusion th:first-child { padding-left:0; min-width:104px; text-align:left !important; }
  .patients .cls { min-width:9.5em; } .patients th:first-child { min-width:7em; }
  .patients th:last-child { min-width:6.5em; }
.curve { display:grid; grid-template-columns:34px 1fr; gap:10px; margin:14px 0 0; padding-right:8px; }
.plots { display:grid; grid-template-columns:repeat(auto-fit,minmax(250px,1fr)); gap:22px 34px; margin:16px 0 0; }
.plots.two { grid-template-columns:repeat(auto-fit,minmax(290px,1fr)); } figure { margin:0; min-width:0; }
figcaption { font-size:.85rem; margin:0 0 6px; } figcaption b { color:var(--ink); display:block; font-size:.95rem; }
.chart { max-width:640px; } .chart .curve { margin:2px 0 0; } .chart .up,.chart .along { display:block; font-size:.75rem;
  color:var(--soft); } .chart .along { text-align:right; } .curve + .curve,.chart + .curve { margin-top:2px; }
svg .line { fill:none; stroke-width:2; stroke:var(--other); } svg .line.own { stroke:var(--own); stroke-width:2.5; }
svg .line.guide { stroke:var(--soft); stroke-width:1; stroke-dasharray:4 4; } svg .thin { stroke-width:1.5; stroke-opacity:.55; }
svg .band { fill:var(--own); fill-opacity:.16; } svg .bar { fill:var(--other); fill-opacity:.55; } svg .small { font-size:11px; }
svg .goal { stroke:var(--ink); stroke-width:2; } svg .cross { stroke:var(--wrong); stroke-width:2.5; }
svg .pause { stroke:var(--soft); stroke-width:2.5; }
.heat { width:auto; min-width:min(100%,640px); } .heat th,.heat td { padding:6px 10px; }
  .heat .mod { text-align:center; padding:6px; }
.heat thead .mod { min-width:42px; } .heat td.cell { border:2px solid var(--paper); border-radius:8px; }
.heat small { color:inherit; opacity:.85; } .heat tr.first > :not(.cell) { border-top:2px solid var(--soft); }
.here { color:var(--own); } .gone { color:var(--soft); }
.legend { margin:8px 0 0; } .legend .key { display:inline-block; vertical-align:-3px; margin:0 2px 0 8px; }
.legend .here,.legend .gone { margin-left:8px; } .legend .here:first-child,.legend .key:first-child { margin-left:0; }
.facts { display:flex; flex-wrap:wrap; gap:14px 44px; margin:12px 0 14px; } .facts b { display:block; font-size:1.5rem;
  font-weight:600; line-height:1.25; } .facts span { display:block; font-size:.85rem; color:var(--soft); }
.sizes { display:grid; grid-template-columns:max-content minmax(60px,360px) max-content; gap:6px 14px; align-items:center;
  font-size:.9rem; } .plain3 { max-width:520px; margin-top:18px; }
.grid { width:auto; } .grid th,.grid td { border:0; padding:3px 14px 3px 0; } .flag { display:block; color:var(--wrong);
  font-size:.8rem; font-weight:600; } .set { font-size:.85rem; margin-top:4px; } tr.above > * { border-bottom:0; }
tr.picture td { padding-top:0; } img { display:block; max-width:100%; max-height:420px; border-radius:8px; }
.contents { margin:20px 0 0; font-size:.9rem; display:flex; flex-wrap:wrap; gap:4px 16px; } a { color:var(--own); }
.probs { display:grid; grid-template-columns:minmax(0,max-content) minmax(56px,1fr) 2.6em; gap:1px 10px;
  align-items:center; font-size:.85rem; color:var(--soft); }
.probs span:nth-child(3n) { text-align:right; } .probs span:nth-child(3n+1) { overflow:hidden; text-overflow:ellipsis;
  white-space:nowrap; } .wrong { color:var(--wrong); font-weight:600; }
dl { margin:10px 0 0; display:grid; grid-template-columns:minmax(130px,max-content) 1fr; gap:8px 22px; }
dt { font-weight:600; max-width:20em; } dd { margin:0; } dl.plain dt { font-weight:400; color:var(--soft); }
dl.plain dd { font-family:ui-monospace,"Cascadia Mono",Menlo,Consolas,"DejaVu Sans Mono",monospace; font-size:.85rem;
  line-height:1.8; }
details { margin-top:12px; } summary { cursor:pointer; color:var(--own); font-weight:600; }
pre { font:.8rem/1.5 ui-monospace,Menlo,Consolas,"DejaVu Sans Mono",monospace; white-space:pre-wrap; margin:10px 0 0; }
.fails { margin:10px 0 0; padding-left:1.1em; } footer { color:var(--soft); font-size:.85rem; margin-top:22px; }
:focus-visible { outline:2px solid var(--own); outline-offset:3px; border-radius:4px; }
@media (max-width:680px) {
  main { padding:24px 14px 40px; } section { padding:18px 16px; }
  .tiles { grid-template-columns:1fr 1fr; } .tile { padding:11px 12px; } .tile b { font-size:1.45rem; }
    .tile:first-child { grid-column:1/-1; }
  .stack,.stack tbody { display:block; } .stack thead,.stack tr.axis .pad { display:none; }
  .stack tr { display:flex; flex-wrap:wrap; gap:4px 18px; padding:11px 0; border-bottom:1px solid var(--line);
    align-items:start; }
  .stack th,.stack td { border:0; padding:0; } .stack th:first-child { flex:1 1 0; min-width:7em; }
    .stack td.num { text-align:left; } .patients .cls { min-width:0; }
  .stack td[data-name]::before { content:attr(data-name) " "; color:var(--soft); font-size:.85rem; }
  .stack td.bar,.stack td.wide { flex:0 0 100%; padding:4px 6px 0; } .stack td.wide { padding:4px 0 0; }
  .stack td.lead { text-align:right; max-width:56vw; } .stack tr.axis { border:0; padding:0; }
  dl { grid-template-columns:1fr; gap:2px; } dd { margin-bottom:10px; }
  .confusion th,.confusion td { padding:6px 4px; font-size:.8rem; } .confusion thead th { font-size:.7rem;
    min-width:60px; }
  .confusion th:first-child { min-width:92px; }
  .heat th,.heat td { padding:6px 4px; } .heat .mod { padding:6px 2px; } .heat thead .mod { min-width:30px; font-size:.7rem; }
  .heat small { display:block; font-size:.72rem; white-space:nowrap; line-height:1.2; } .heat thead th.num { white-space:normal; }
  .confusion td.cell { font-size:1rem; min-width:44px; }
}
@media print {
  .contents,summary { display:none; } details::details-content { content-visibility:visible; block-size:auto; }
  :root { color-scheme:light; --page:#fff; --paper:#fff; --ink:#000; --soft:#444; --line:#ccc; --own:#0a6a72;
    --other:#666; --wash:10 106 114;
    --wrong:#a8432c; --note:#fff; --note-ink:#000; }
  body { font-size:10.5pt; } main { padding:0; max-width:none; } section { border:0; border-top:1px solid #ccc;
    border-radius:0; padding:12px 0; }
  tr,.tile,.curve,figure,.heat,.sizes,dt,dd { break-inside:avoid; } h2,h3,h2 + p,h3 + p,figcaption,tr.above {
    break-after:avoid; }
  .tiles { grid-template-columns:repeat(5,1fr); } .plots { grid-template-columns:repeat(3,1fr); gap:16px 20px; }
  .plots.two { grid-template-columns:1fr 1fr; }
  * { print-color-adjust:exact; -webkit-print-color-adjust:exact; }
}
"""
