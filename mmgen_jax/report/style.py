"""How a report looks: one style sheet, light and dark, from a phone to a wide screen, without fonts or files.

The colours of groups are those of Petroff 2021 (arXiv:2107.02270), chosen to be told apart also by the colour-blind.
"""

CSS = """
:root { color-scheme: light dark;
  --page: #f7f6f3; --card: #ffffff; --ink: #1c1d20; --soft: #63666d; --line: #e3e1db; --accent: #2f5fd0;
  --given: #fff4d6; --given-line: #d9a514; --heat: 47 95 208; }
@media (prefers-color-scheme: dark) { :root {
  --page: #131417; --card: #1c1e22; --ink: #ecebe7; --soft: #9b9ea6; --line: #303339; --accent: #86a8ff;
  --given: #352d14; --given-line: #c79a1c; --heat: 110 150 255; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
main { max-width: 1160px; margin: 0 auto; padding: 56px 24px 96px; }
h1 { font-size: clamp(30px, 5vw, 46px); line-height: 1.1; letter-spacing: -.025em; margin: 0 0 14px; }
h2 { font-size: 23px; letter-spacing: -.012em; margin: 64px 0 6px; }
h3 { font-size: 15px; margin: 28px 0 8px; }
p { margin: 0 0 14px; max-width: 74ch; }
.lead { font-size: 18px; color: var(--soft); }
.note, figcaption { color: var(--soft); font-size: 14px; max-width: 110ch; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 14px; padding: 18px; margin: 14px 0; }
.scroll { overflow-x: auto; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px; margin: 30px 0 0; }
.tile { background: var(--card); border: 1px solid var(--line); border-radius: 14px; padding: 14px 18px; }
.tile b { display: block; font-size: 26px; letter-spacing: -.02em; line-height: 1.25; }
.tile span { color: var(--soft); font-size: 13px; }
.plots { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 330px), 1fr)); gap: 12px; }
.plots figure { margin: 0; }
.plots .first { grid-column: 1 / -1; }
figure.card { padding: 12px 14px 8px; }
svg { display: block; width: 100%; height: auto; }
svg text { fill: var(--soft); font: 11px system-ui, sans-serif; font-variant-numeric: tabular-nums; }
svg .axis { stroke: var(--line); stroke-width: 1; }
svg .curve { fill: none; stroke: var(--accent); stroke-width: 1.8; stroke-linejoin: round; }
svg .dots { fill: none; stroke: var(--c, var(--accent)); stroke-width: 4.5; stroke-linecap: round; opacity: .65; }
svg .name { font-size: 13px; font-weight: 650; fill: var(--ink); text-anchor: middle;
  paint-order: stroke; stroke: var(--card); stroke-width: 4px; stroke-linejoin: round; }
.c0 { --c: #3f90da; } .c1 { --c: #ffa90e; } .c2 { --c: #bd1f01; } .c3 { --c: #94a4a2; } .c4 { --c: #832db6; }
.c5 { --c: #a96b59; } .c6 { --c: #e76300; } .c7 { --c: #b9ac70; } .c8 { --c: #717581; } .c9 { --c: #92dadd; }
.rest { --c: var(--line); }
.keys { color: var(--soft); font-size: 14px; max-width: none; }
.key { margin-left: 14px; white-space: nowrap; }
.key::before { content: ""; display: inline-block; width: 10px; height: 10px; border-radius: 5px; margin-right: 5px;
  background: var(--c); }
.maps { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 330px), 1fr)); gap: 12px; }
.maps figure { margin: 0; }
.maps figcaption { display: flex; justify-content: space-between; }
.pairs { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 480px), 1fr)); gap: 12px; }
.pairs .card { margin: 0; }
.moves { width: 100%; }
.moves th, .moves td { padding: 3px 4px; text-align: center; }
.moves th:first-child { text-align: left; }
.moves th span { display: block; font-weight: 400; }
.moves .picture { height: 52px; margin: 0 auto; }
.moves .class { display: block; font-size: 12px; font-weight: 400; color: var(--soft); line-height: 1.3; }
svg .wave { fill: var(--accent); }
.nats { fill: rgb(var(--heat)); }
.nats span { border-radius: 3px; white-space: pre-wrap; }
.grid .text.nats { max-width: 60ch; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th { font-weight: 600; font-size: 13px; color: var(--soft); text-align: left; padding: 6px 10px; white-space: nowrap; }
td { padding: 6px 10px; vertical-align: middle; }
.grid { width: 100%; }
.grid td, .grid th { text-align: center; border-top: 1px solid var(--line); padding: 8px; }
.grid thead th { border-top: 0; }
.grid th:first-child { text-align: left; }
td.given { background: var(--given); box-shadow: inset 0 0 0 1.5px var(--given-line); border-radius: 8px; }
.grid .picture { height: 84px; margin: 0 auto; }
.picture { display: block; image-rendering: pixelated; max-width: 100%; border-radius: 6px; background: #000; }
.sound { width: 168px; margin: 0 auto; }
.sound audio { width: 100%; height: 30px; display: block; }
.text { font: 13px/1.4 ui-monospace, "SF Mono", Menlo, Consolas, monospace; overflow-wrap: anywhere; }
.grid .text { display: inline-block; min-width: 13ch; max-width: 25ch; text-align: left; }
.class { font-size: 21px; font-weight: 650; }
.missing { color: var(--soft); }
.samples { display: grid; grid-template-columns: repeat(auto-fill, minmax(200px, 1fr)); gap: 12px; }
.samples .card { margin: 0; display: flex; flex-wrap: wrap; gap: 10px; align-items: center; justify-content: center; }
.samples .picture { height: 76px; }
.samples .class { order: 1; }
.samples .sound { order: 2; }
.samples .text { order: 3; flex-basis: 100%; text-align: center; }
.texts { columns: 2; column-gap: 32px; margin: 0; padding-left: 1.4em; }
.texts li { break-inside: avoid; margin-bottom: 5px; }
.numbers td { border-top: 1px solid var(--line); font-size: 14px; }
.numbers td + td { text-align: right; padding-left: 36px; }
.heat td { text-align: center; min-width: 78px; border-radius: 6px; }
details { margin: 12px 0; }
summary { cursor: pointer; font-weight: 600; }
pre { overflow-x: auto; font: 13px/1.5 ui-monospace, "SF Mono", Menlo, Consolas, monospace; margin: 10px 0 0; }
@media (max-width: 640px) { main { padding: 32px 14px 64px; } .texts { columns: 1; } h2 { margin-top: 44px; }
  .sound { width: 140px; } .grid .picture { height: 62px; max-width: none; }
  .samples { grid-template-columns: 1fr 1fr; } }
"""
