"""The one style sheet of all pages: light, dark and print, on a telephone and a wide screen."""

STYLE = """\
:root { --ink: #222; --quiet: #5f5f5f; --faint: #a9a9a9; --line: #e6e6e2; --page: #f5f5f3;
  --card: #fff; --edge: #e3e3df; --code: #fafaf8; --warm: #fff8e6; --warm-edge: #edd9a3;
  --cool: #f1f6fa; --cool-edge: #cfdfea; --bad: #b00020; --accent: #0072b2; color-scheme: light }
@media (prefers-color-scheme: dark) { :root:not([data-theme=light]) { DARK } }
:root[data-theme=dark] { DARK }

* { box-sizing: border-box }
body { margin: 0; background: var(--page); color: var(--ink); font: 15px/1.5 system-ui, sans-serif }
main { max-width: 1240px; margin: 0 auto; padding: 1.6rem 1rem 4rem }
header { display: flex; gap: 1rem; justify-content: space-between; align-items: flex-start }
h1 { font-size: 1.5rem; margin: 0 0 .2rem; overflow-wrap: anywhere }
h2 { font-size: 1.1rem; margin: 0 0 .6rem; overflow-wrap: anywhere }
h3 { font-size: 1rem; margin: 1.2rem 0 .4rem }
section, .tile { background: var(--card); border: 1px solid var(--edge); border-radius: 8px }
section { padding: 1.1rem 1.3rem; margin-top: 1rem }
section p, section li { max-width: 85ch; overflow-wrap: anywhere }
.quiet, .tile span { color: var(--quiet); font-size: .87rem }
.lines { white-space: pre-line }
.nowrap { white-space: nowrap }

.picture { overflow-x: auto }
.picture svg { width: 100%; max-width: 900px; min-width: 520px; height: auto; display: block }

table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums;
  font-size: .87rem }
table + table { margin-top: 1rem }
th, td { text-align: right; padding: .28rem .5rem; border-bottom: 1px solid var(--line) }
th { font-weight: 600; color: var(--quiet); vertical-align: bottom }
th:first-child, td:first-child, .text { text-align: left }
td.text { overflow-wrap: anywhere }
.scroll { overflow-x: auto; background:
  linear-gradient(90deg, var(--card) 30%, transparent) left / 40px 100% local,
  linear-gradient(270deg, var(--card) 30%, transparent) right / 40px 100% local,
  linear-gradient(270deg, #0003, transparent) right / 12px 100% scroll;
  background-repeat: no-repeat }
.scroll th, .scroll td { padding: .28rem .42rem; font-size: .83rem }
.scroll th, .scroll td:not(.long) { white-space: nowrap }
.scroll td.long { min-width: 16rem; max-width: 34rem; overflow-wrap: anywhere }
.scroll td:first-child, .scroll th:first-child { position: sticky; left: 0; background: var(--card);
  padding-left: 0; max-width: 45vw; overflow: hidden; text-overflow: ellipsis }
.hint { color: var(--quiet); font-size: .8rem; margin: .2rem 0; text-align: right;
  max-width: none !important }
.filter { margin: .2rem 0 .5rem }
.run { max-width: 14rem; overflow: hidden; text-overflow: ellipsis }
.values { width: auto; margin-bottom: .7rem }
.mark { color: var(--quiet); font-size: .8rem }
.refuted { color: var(--bad); font-weight: 600 }

button, select, input { font: inherit; font-size: .87rem; color: inherit; background: var(--card);
  border: 1px solid var(--faint); border-radius: 6px; padding: .2rem .55rem; max-width: 100% }
button { cursor: pointer }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px }
th button.sort { all: unset; cursor: pointer }
th button.sort:focus-visible { outline: 2px solid var(--accent) }
th[aria-sort] button.sort { color: var(--ink) }
th[aria-sort=ascending] button.sort::after { content: " ▲" }
th[aria-sort=descending] button.sort::after { content: " ▼" }
.controls { display: flex; flex-wrap: wrap; gap: .5rem 1rem; margin: .3rem 0 .8rem }
.controls label { display: inline-flex; gap: .4rem; align-items: center; max-width: 100% }
.controls select { min-width: 0; flex: 0 1 auto }
.tall { max-height: 30rem; overflow: auto }
.tall th { position: sticky; top: 0; background: var(--card); z-index: 1 }
.live .still { display: none }
.plot { width: 100%; overflow: hidden }
.plot .u-legend { text-align: left; font-size: .83rem; width: auto; max-width: 100% }
.plot .u-legend th, .plot .u-legend td { border: 0; padding: .1rem .3rem; text-align: left;
  color: var(--ink) }
.plot .u-legend .u-label { overflow-wrap: anywhere }
.plot .u-select { background: color-mix(in srgb, var(--accent) 18%, transparent) }
#map-scale i { display: inline-block; width: 9rem; height: .7rem; vertical-align: middle;
  background: linear-gradient(90deg, #440154, #3b528b, #21918c, #5ec962, #fde725) }
#map-cell { min-height: 1.5em; margin: .2rem 0; font-variant-numeric: tabular-nums }

.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(130px, 1fr)); gap: .7rem;
  margin-top: 1.2rem }
.tile { padding: .7rem .8rem; overflow-wrap: anywhere }
.tile b { display: block; font-size: 1.5rem; line-height: 1.2 }
.tile i { display: block; font-style: normal; font-weight: 600 }
.below b { color: var(--quiet); font-weight: 400 }
.verdict { border-left: 4px solid var(--accent) }
.verdict.leaks { border-left-color: var(--bad) }
.verdict p { margin: .3rem 0 }
p.verdict { margin: .5rem 0 0; padding-left: .8rem; overflow-wrap: anywhere }
.warning { margin-top: 1rem; padding: .7rem 1rem; background: var(--warm); overflow-wrap: anywhere;
  border: 1px solid var(--warm-edge); border-left: 4px solid #e69f00; border-radius: 6px }
.warning p { margin: 0 }
.warning p + p { margin-top: .5rem }
.note { background: var(--cool); border-color: var(--cool-edge); border-left-color: #56b4e9 }

.gallery { display: flex; flex-wrap: wrap; gap: 1rem; margin-top: .7rem }
.gallery figure { margin: 0 }
.gallery figcaption { color: var(--quiet); font-size: .83rem; line-height: 1.35 }
.gallery figcaption b { color: var(--ink) }
.gallery span { display: inline-block; width: 84px; margin-right: 2px; text-align: center;
  font-size: .75rem; color: var(--quiet) }
.gallery i { display: block; height: 84px; overflow: hidden; background: #eee }
.gallery img { width: 100%; height: 100%; object-fit: contain; image-rendering: pixelated;
  filter: blur(24px) }
.small span { width: 60px; font-size: .68rem }
.small i { height: 60px }
.small img { filter: blur(15px) }
.reveal:checked ~ .gallery img { filter: none }
.texts article { border-top: 1px solid var(--line); margin-top: .7rem; padding-top: .5rem;
  display: grid; gap: .2rem 1.2rem; grid-template-columns: repeat(3, minmax(0, 1fr)) }
.texts article > p { grid-column: 1 / -1; margin: 0; font-size: .87rem }
.texts small { color: var(--quiet) }
.said { margin: 0; white-space: pre-wrap; overflow-wrap: anywhere; filter: blur(6px) }
.records .said { display: inline-block; white-space: pre; overflow-wrap: normal }
.records small { color: var(--quiet); font-weight: normal }
.reveal:checked ~ .texts .said { filter: none }
.reveal:checked ~ .records .said { filter: none }
.hit { background: color-mix(in srgb, var(--accent) 24%, transparent); border-radius: 3px }
.miss { color: var(--quiet); text-decoration: line-through }
.rare { border-bottom: 2px dotted var(--bad) }

pre { white-space: pre-wrap; overflow-wrap: anywhere; background: var(--code); padding: .8rem;
  font-size: .8rem }
@media (max-width: 600px) { main { padding: 1rem .6rem 3rem } section { padding: .8rem .7rem }
  .texts article { grid-template-columns: minmax(0, 1fr) } }
@media print { .controls select { min-width: 0; flex: 0 1 auto }
.tall { max-height: 30rem; overflow: auto }
.tall th { position: sticky; top: 0; background: var(--card); z-index: 1 }
.live .still { display: block } #explore, #theme, .filter, .hint { display: none }
  body { background: #fff } section { break-inside: avoid-page }
  .scroll { overflow: visible; max-height: none } }
""".replace(
    "DARK",
    "--ink: #e6e6e3; --quiet: #a8a8a4; --faint: #6d6d6a; --line: #37373a; --page: #161618; "
    "--card: #212124; --edge: #37373a; --code: #1a1a1c; --warm: #33290f; --warm-edge: #5f4c17; "
    "--cool: #16242f; --cool-edge: #29435a; --bad: #ff8091; --accent: #56b4e9; color-scheme: dark",
)
DARK_PICTURES = """\
@media screen and (prefers-color-scheme: dark) {
  :root:not([data-theme=light]) .picture svg { filter: invert(.88) hue-rotate(180deg) } }
@media screen { :root[data-theme=dark] .picture svg { filter: invert(.88) hue-rotate(180deg) } }
@media screen and (prefers-color-scheme: dark) {
  :root:not([data-theme=light]) .picture svg image { filter: hue-rotate(180deg) invert(1) } }
@media screen { :root[data-theme=dark] .picture svg image { filter: hue-rotate(180deg) invert(1) } }
"""
