"""The report's page as a Jinja template.

Kept in Python because Flower's app bundle carries no HTML files.
"""

PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>fedsim: {{ (runs | map(attribute="name") | list)[:4] | join(", ") }}</title>
<style>
body { margin: 0; background: #f5f5f3; color: #222; font: 15px/1.5 system-ui, sans-serif }
main { max-width: 940px; margin: 0 auto; padding: 2rem 1rem 4rem }
h1 { font-size: 1.5rem; margin: 0 0 .2rem } h2 { font-size: 1.1rem; margin: 0 0 .6rem }
section, .tile { background: #fff; border: 1px solid #e3e3df; border-radius: 8px }
section { padding: 1.1rem 1.3rem; margin-top: 1rem; overflow-x: auto }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(115px, 1fr)); gap: .7rem;
  margin-top: 1.2rem }
.tile { padding: .7rem .8rem } .tile b { display: block; font-size: 1.5rem; line-height: 1.2 }
.tile span, .quiet, caption { color: #666; font-size: .87rem }
svg { width: 100%; height: auto; display: block }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums }
th, td { text-align: right; padding: .28rem .6rem; border-bottom: 1px solid #eee }
th { font-weight: 600; color: #555; font-size: .87rem } th:first-child, td:first-child,
td.text, th.text { text-align: left }
.scroll { overflow-x: auto } .scroll th, .scroll td { white-space: nowrap; padding: .28rem .42rem;
  font-size: .83rem }
.scroll th { vertical-align: bottom } .scroll td:first-child, .scroll th:first-child {
  position: sticky; left: 0; background: #fff; padding-left: 0 }
.mark { color: #888; font-size: .8rem }
.warning { margin-top: 1rem; padding: .7rem 1rem; background: #fff8e6; border: 1px solid #edd9a3;
  border-left: 4px solid #e69f00; border-radius: 6px }
.warning p { margin: 0 } .warning p + p { margin-top: .5rem } .nowrap { white-space: nowrap }
.refuted { color: #b00020 }
td.run { max-width: 9rem; overflow: hidden; text-overflow: ellipsis }
.note { background: #f1f6fa; border-color: #cfdfea; border-left-color: #56b4e9 }
.gallery { display: flex; flex-wrap: wrap; gap: 1rem; margin-top: .7rem }
.gallery figure { margin: 0 } .gallery figcaption { color: #666; font-size: .83rem; line-height: 1.35 }
.gallery figcaption b { color: #222 }
.gallery span { display: inline-block; width: 84px; margin-right: 2px; text-align: center; font-size: .75rem; color: #888 }
.gallery i { display: block; height: 84px; overflow: hidden; background: #eee }
.gallery img { width: 100%; height: 100%; object-fit: contain; image-rendering: pixelated; filter: blur(24px) }
.small span { width: 60px; font-size: .68rem } .small i { height: 60px } .small img { filter: blur(15px) }
.reveal:checked ~ .gallery img { filter: none } .values { width: auto; margin-bottom: .7rem }
pre { overflow-x: auto; background: #fafaf8; padding: .8rem; font-size: .8rem }
</style>
</head>
<body><main>
<h1>{% if runs | length > 4 %}{{ runs | length }} runs compared{% else
%}{{ runs | map(attribute="name") | join(" · ") }}{% endif %}</h1>
<p class="quiet">What an honest-but-curious server learned from the updates of this federation,
round by round.</p>
{% if runs | length == 1 %}
{% set run = runs[0] %}
<div class="tiles">
{% if run.accuracy[1] | length %}
  <div class="tile"><b>{{ run.accuracy[1][-1] | percent }}</b><span>test accuracy, round
  {{ run.accuracy[0][-1] }}</span></div>
{% endif %}
{% for curve in run.leaders()[:4] %}
  <div class="tile"><b>{{ curve.main.value | of(curve.metric) }}</b><span>{{ curve.attack }}, mean
  {{ curve.metric | upper }}; <span class="nowrap">blind {{ curve.main.blind_value | of(curve.metric) }}</span></span></div>
{% endfor %}
  <div class="tile"><b>{{ run.failures | length }}</b><span>failures</span></div>
</div>
{% endif %}
{% for kind, sentences in said if sentences %}
<div class="{{ kind }}" role="note">
{% for name, sentence in sentences %}
<p>{% if runs | length > 1 %}<b>{{ name }}:</b> {% endif %}{{ sentence }}</p>
{% endfor %}
</div>
{% endfor %}
{% for title, caption, svg in pictures %}
<section><h2>{{ title }}</h2>{{ svg | safe }}<p class="quiet">{{ caption }}</p></section>
{% endfor %}
{% for run, audit in audits %}
<section><h2>{{ audit.title }}{% if runs | length > 1 %} of {{ run.name }}{% endif %}</h2>
{{ audit.svg | safe }}<p class="quiet">{{ audit.caption if audit.svg }}</p>
{% if audit.lines %}
<table><tr><th class="text">round {{ audit.round }}</th><th class="text">what is counted</th><th class="text">is a</th>
<th class="text">assumes</th><th>ε</th><th>theory</th><th>trials</th><th>at most</th></tr>
{% for line in audit.lines %}
<tr><td class="text">{{ line.method }}</td><td class="text">{{ line.how }}</td><td class="text">{{ line.guarantee }}</td>
<td class="text">{{ line.assumes }}</td><td class="nowrap">{% if line.exceeds %}<b class="refuted">{{ line.epsilon }}</b>{% else %}{{ line.epsilon }}{% endif %}</td>
<td>{{ line.theory }}</td><td>{{ line.trials }}</td><td>{{ line.most }}</td></tr>
{% endfor %}
</table>
<p class="quiet"><i>At most</i> is what so many trials could have shown without any error; – has no
limit. Only a bound can refute a claim, and one that assumes something refutes the claim or the assumption.
{% if audit.silent %}Nothing to say: {{ audit.silent | join("; ") }}.{% endif %}</p>
{% else %}
<p class="quiet">Nothing could be graded: no coins of canaries are at hand, or too few uploads.</p>
{% endif %}
</section>
{% endfor %}
{% for gallery in galleries %}
<section><h2>Recovered by {{ gallery.attack }}</h2>
{% if gallery["values"] %}
<table class="values"><tr><th></th>{% for name, value, blind in gallery["values"] %}<th>{{ name }}</th>{% endfor %}</tr>
<tr><td>mean over clients and rounds</td>{% for name, value, blind in gallery["values"] %}<td>{{ value }}</td>{% endfor %}</tr>
<tr><td>blind picture</td>{% for name, value, blind in gallery["values"] %}<td>{{ blind }}</td>{% endfor %}</tr></table>
{% endif %}
{% if gallery.examples %}
<input type="checkbox" class="reveal" id="reveal-{{ loop.index }}"><label for="reveal-{{ loop.index }}">
Show the pictures, which are blurred because they may be private</label>
{% for heading, size, shown in ((gallery.heading, "", gallery.examples), ("Best example of each attacked round", " small", gallery.rounds)) if shown %}
<p><b>{{ heading }}</b></p>
<div class="gallery{{ size }}">
{% for one in shown %}
<figure>{% for what, uri in one.pictures.items() %}<span><i><img src="{{ uri }}" alt="{{ what }}"></i>{{ what }}</span>
{% endfor %}<figcaption><b>{{ one.title }}</b>{% for line in one.caption %}<br>{{ line }}{% endfor %}</figcaption></figure>
{% endfor %}
</div>
{% endfor %}
<p class="quiet">{% for sentence in gallery.sentences %}{{ sentence }} {% endfor %}{% if gallery.rounds %}<i>Difference</i> is
the distance of each pixel, black where there is none. {% endif %}<i>Blind</i> is the mean auxiliary
image, which looks at no update. The blur is for the eyes: the pixels are in this file.</p>
{% else %}
<p class="quiet">{% for sentence in gallery.sentences %}{{ sentence }} {% endfor %}</p>
{% endif %}
</section>
{% endfor %}
{% if defended %}
<section><h2>Defenses</h2>
<div class="scroll"><table>
<tr>{% if runs | length > 1 %}<th class="text">run</th>{% endif %}<th class="text">defense</th>
<th>test<br>accuracy</th>
<th class="text">family</th><th>strongest<br>static</th><th>strongest<br>adaptive</th><th>blind</th>
<th>cosine</th><th>SNR,<br>dB</th><th>upload,<br>KB</th><th>train,<br>s/round</th></tr>
{% for row in defended %}{% for left in row.left or [none] %}
<tr>{% if runs | length > 1 %}<td class="text run" title="{{ row.run.name }}">{{ row.run.name }}</td>{% endif %}
<td class="text">{{ row.name }}</td><td>{{ row.accuracy | percent }}</td>
{% if left %}
<td class="text">{{ left.family }}</td>
{% for curve in (left.static, left.adaptive) %}
<td>{% if curve %}{{ curve.main.value | of(curve.metric) }} <span class="mark">{{ curve.attack |
replace(" (adaptive)", "") }}</span>{% else %}–{% endif %}</td>
{% endfor %}
<td>{{ left.worst.main.blind_value | of(left.worst.metric) }}</td>
{% else %}<td>–</td><td>–</td><td>–</td><td>–</td>{% endif %}
<td>{{ row.mean("update_cosine") | number(2) }}</td><td>{{ row.mean("update_snr_db") | number(1) }}</td>
<td>{{ row.kilobytes | number(1) }}</td>
<td>{{ row.seconds | number(2) }}</td></tr>
{% endfor %}{% endfor %}
</table></div>
<p class="quiet">A defense is worth what it is against the strongest attacker, so that the larger of
<i>static</i> (knows nothing of the defense) and <i>adaptive</i> (knows it and its options, not its
coins) counts. <i>Cosine</i> and <i>SNR</i> compare the upload with what the client would have
uploaded without the defense; – is an update left as it was. <i>Upload</i> is the update in its shortest plain
encoding (dense, sparse or a table of values); Flower itself sends every array dense. <i>Train</i>
includes what the comparison itself takes, for a defense inside training a second training.</p>
{% set promises = {} %}
{% for row in defended if row.kind not in promises or row.epsilon %}
{% if promises.update({row.kind: 1}) %}{% endif %}
<p>{% if row.promise.epsilon and row.epsilon is not none %}<b>{{ row.name }}</b>: formal, towards the server: {{ row.promise.statement }};
{{ row.promise.mechanism }}, neighbours {{ row.promise.relation }}; ε = {{ "%.3g" | format(row.epsilon) }} at δ = {{ "%g" | format(row.promise.delta) }} for the most
exposed client after the last round.
{% elif row.promise.epsilon %}<b>{{ row.name }}</b>: no guarantee here, because the model's running
statistics are uploaded as they are, or no round was finished.
{% elif row.kind != "none" %}<b>{{ row.kind }}</b>: heuristic, no guarantee: {{ row.promise.statement }}.
{% endif %}</p>
{% endfor %}
</section>
{% endif %}
<section><h2>Attacks</h2>
{% if runs | selectattr("curves") | list %}
<div class="scroll"><table>
<tr>{% if runs | length > 1 %}<th class="text">run</th>{% endif %}<th class="text">attack</th>
<th class="text">family</th><th class="text">metric</th><th>first<br>round</th><th>last<br>round</th>
<th>mean</th><th>blind</th><th>skill</th><th>exact</th><th>precision</th><th>recall</th>
<th>L1/2N</th><th>ms</th></tr>
{% for run in runs %}{% for curve in run.curves %}
<tr>{% if runs | length > 1 %}<td class="text run" title="{{ run.name }}">{{ run.name }}</td>{% endif %}
<td class="text">{{ curve.attack }}{% if curve.baseline %} <span class="mark">baseline</span>{% endif %}
{% if curve.failures %} <span class="mark">{{ curve.failures }} failed</span>{% endif %}</td>
<td class="text">{{ curve.family }}</td><td class="text">{{ curve.metric }}</td>
<td>{{ curve.main.mean[0] | of(curve.metric) }}</td><td>{{ curve.main.mean[-1] | of(curve.metric) }}</td>
<td>{{ curve.main.value | of(curve.metric) }}</td><td>{{ curve.main.blind_value | of(curve.metric) }}</td>
<td>{{ "%.2f" | format(curve.skill) }}</td><td>{{ curve.means.get("exact") | percent }}</td>
<td>{{ curve.means.get("precision") | percent }}</td>
<td>{{ curve.means.get("recall") | percent }}</td><td>{{ curve.l1 | percent }}</td>
<td>{{ "%.2f" | format(curve.milliseconds) }}</td></tr>
{% endfor %}{% endfor %}
</table></div>
<p class="quiet">Sorted by skill. <i>First round</i>, <i>last round</i> and <i>mean</i> are those of
the metric; <i>blind</i> is the same metric for the best guess without looking at any update. For
labels, <i>skill</i> = (ASR − chance) / (1 − chance), where chance is the expected ASR of labels
drawn evenly at random; for other families blind stands in the place of chance, and of a metric in dB
it is the share of the blind guess’s squared error that is gone. <i>Exact</i> is the
share of clients and rounds with every count right; <i>precision</i> and <i>recall</i> are those of
the classes named present; <i>L1/2N</i> = 1 − ASR is the label papers’ error, where less is more
leakage; <i>ms</i> is the time of one attack on one client. All are means over clients and rounds. A
<i>baseline</i> looks at no update; <i>failed</i> says how often an attack gave no answer, which no
mean counts.</p>
{% else %}
<p class="quiet">Nothing could be graded: no attack answered, or no ground truth is at hand.</p>
{% endif %}
</section>
{% for run in runs %}{% if run.failures %}
<section><h2>Failures{% if runs | length > 1 %} of {{ run.name }}{% endif %}</h2>
<table><tr><th class="text">what</th><th>times</th><th class="text">clients</th>
<th class="text">rounds</th><th class="text">reason</th></tr>
{% set failures = groups(run.failures) %}
{% for group in failures[:50] %}
<tr><td class="text">{{ group.what }}</td><td>{{ group.rows }}</td>
<td class="text">{{ group.clients[:5] | join(", ") }}{% if group.clients | length > 5 %} and
{{ group.clients | length - 5 }} more{% endif %}</td><td class="text">{{ group.rounds }}</td>
<td class="text">{{ group.reason }}{% if group.alike > 1 %} <span class="mark">and
{{ group.alike - 1 }} alike</span>{% endif %}</td></tr>
{% endfor %}
</table>
{% if failures | length > 50 %}<p class="quiet">and {{ failures | length - 50 }} more kinds in
metrics.parquet</p>{% endif %}
</section>
{% endif %}{% endfor %}
<section><h2>Setting</h2>
<table>
<tr><th></th>{% for run in runs %}<th class="text">{{ run.name }}</th>{% endfor %}</tr>
{% for key in runs[0].facts %}
<tr><td>{{ key }}</td>{% for run in runs %}<td class="text">{{ run.facts[key] }}</td>{% endfor %}</tr>
{% endfor %}
</table>
{% if runs | length == 1 %}
<details><summary class="quiet">The whole config</summary>
<pre>{{ (runs[0].folder.path / "config.toml").read_text() }}</pre></details>
{% endif %}
</section>
</main></body></html>
"""
