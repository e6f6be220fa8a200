"""The frame of every page, and its one style sheet: no network, readable on a telephone."""

TEMPLATE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>fedsim: {% block name %}{{ title | lower }}{% endblock %}</title>
<style>
body { margin: 0; background: #f5f5f3; color: #222; font: 15px/1.5 system-ui, sans-serif }
main { max-width: 960px; margin: 0 auto; padding: 2rem 1rem 4rem }
h1 { font-size: 1.5rem; margin: 0 0 .2rem; overflow-wrap: anywhere }
h2 { font-size: 1.1rem; margin: 0 0 .6rem }
section, .tile { background: #fff; border: 1px solid #e3e3df; border-radius: 8px }
section { padding: 1.1rem 1.3rem; margin-top: 1rem; overflow-x: auto }
.quiet, .tile span { color: #666; font-size: .87rem }
.lines { white-space: pre-line }
.nowrap { white-space: nowrap }

.picture { overflow-x: auto }
.picture svg { width: 100%; min-width: 560px; height: auto; display: block }

table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums;
  font-size: .87rem }
table + table { margin-top: 1rem }
th, td { text-align: right; padding: .28rem .5rem; border-bottom: 1px solid #eee }
th { font-weight: 600; color: #555 }
th:first-child, td:first-child, .text { text-align: left }
.scroll { overflow-x: auto }
.scroll th, .scroll td { white-space: nowrap; padding: .28rem .42rem; font-size: .83rem }
.scroll th { vertical-align: bottom }
.scroll td:first-child, .scroll th:first-child { position: sticky; left: 0; background: #fff;
  padding-left: 0 }
.run { max-width: 9rem; overflow: hidden; text-overflow: ellipsis }
.values { width: auto; margin-bottom: .7rem }
.mark { color: #888; font-size: .8rem }
.refuted { color: #b00020; font-weight: 600 }

.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(115px, 1fr)); gap: .7rem;
  margin-top: 1.2rem }
.tile { padding: .7rem .8rem }
.tile b { display: block; font-size: 1.5rem; line-height: 1.2 }
.tile i { display: block; font-style: normal; font-weight: 600 }
.below b { color: #888; font-weight: 400 }
.verdict { border-left: 4px solid #0072b2 }
.verdict.leaks { border-left-color: #b00020 }
.verdict p { margin: .3rem 0 }
p.verdict { margin: .5rem 0 0; padding-left: .8rem; overflow-wrap: anywhere }
.warning { margin-top: 1rem; padding: .7rem 1rem; background: #fff8e6; border: 1px solid #edd9a3;
  border-left: 4px solid #e69f00; border-radius: 6px }
.warning p { margin: 0 }
.warning p + p { margin-top: .5rem }
.note { background: #f1f6fa; border-color: #cfdfea; border-left-color: #56b4e9 }

.gallery { display: flex; flex-wrap: wrap; gap: 1rem; margin-top: .7rem }
.gallery figure { margin: 0 }
.gallery figcaption { color: #666; font-size: .83rem; line-height: 1.35 }
.gallery figcaption b { color: #222 }
.gallery span { display: inline-block; width: 84px; margin-right: 2px; text-align: center;
  font-size: .75rem; color: #888 }
.gallery i { display: block; height: 84px; overflow: hidden; background: #eee }
.gallery img { width: 100%; height: 100%; object-fit: contain; image-rendering: pixelated;
  filter: blur(24px) }
.small span { width: 60px; font-size: .68rem }
.small i { height: 60px }
.small img { filter: blur(15px) }
.reveal:checked ~ .gallery img { filter: none }

pre { white-space: pre-wrap; overflow-wrap: anywhere; background: #fafaf8; padding: .8rem;
  font-size: .8rem }
</style>
</head>
<body><main>
<h1>{% block heading %}{{ title }}{% endblock %}</h1>
{% block body %}{% endblock %}
</main></body></html>
"""
