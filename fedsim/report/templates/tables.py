"""The run report's tables: audits over rounds, defenses, attacks, failures."""

TEMPLATE = """\
{% macro audits_over_rounds(audits, several) %}
{% for run, audit in audits %}
<section><h2>{{ audit.title }}{% if several %} of {{ run.label }}{% endif %}</h2>
{% if audit.picture %}
<div class="picture">{{ audit.picture.svg | safe }}</div>
<p class="quiet">{{ audit.picture.caption }}</p>
{% endif %}
{% if audit.lines %}
<div class="scroll" role="region" aria-label="Audits"><table class="data">
<tr><th>round {{ audit.round }}</th><th class="text">what is counted</th>
<th class="text">is a</th><th class="text">assumes</th><th>ε</th><th>theory</th><th>trials</th>
<th>at most</th></tr>
{% for line in audit.lines %}
<tr><td>{{ line.method }}</td><td class="text long">{{ line.how }}</td>
<td class="text">{{ line.guarantee }}</td><td class="text long">{{ line.assumes }}</td>
<td class="nowrap">
{%- if line.exceeds %}<b class="refuted">{{ line.epsilon }}</b>{% else %}{{ line.epsilon }}
{%- endif %}</td>
<td>{{ line.theory }}</td><td>{{ line.trials }}</td><td>{{ line.most }}</td></tr>
{% endfor %}
</table></div>
<p class="quiet"><i>At most</i> is the ε that so many trials would show without any error; – means
no limit. Only a bound can refute a claim. If the bound assumes something, the claim or the
assumption is wrong.
{% if audit.silent %}These methods gave no number: {{ audit.silent | join("; ") }}.{% endif %}</p>
{% else %}
<p class="quiet">Nothing could be graded: the coins of the canaries are missing, or there are too
few uploads.</p>
{% endif %}
</section>
{% endfor %}
{% endmacro %}

{% macro clients(tables) %}
{% for it in tables %}
<section class="still"><h2>In which round each client leaked most: {{ it.curve.title }}</h2>
<div class="scroll tall" role="region" aria-label="Clients"><table class="data">
<tr><th>client</th><th>leaked most<br>in round</th><th>{{ it.curve.metric_name }}<br>there</th>
<th>blind<br>there</th><th>mean</th><th>blind</th><th>rounds</th></tr>
{% for row in it.rows %}
<tr><td>{{ row[0] }}</td><td>{{ row[1] }}</td>
{% for value in row[2:6] %}<td>{{ value | of(it.curve.metric) }}</td>{% endfor %}
<td>{{ row[6] }}</td></tr>
{% endfor %}
</table></div>
<p class="quiet">The round in which the value is farthest above the client’s blind guess, for the
strongest attack on {{ it.curve.family }}.{% if it.rows | length < it.of %} Only the
{{ it.rows | length }} most exposed of {{ it.of }} clients are listed.{% endif %}</p></section>
{% endfor %}
{% endmacro %}

{% macro over_seeds(settings) %}
{% for it in settings %}
<section><h2>Over {{ it.runs | length }} seeds{% if settings | length > 1 %}: {{ it.label }}
{%- endif %}</h2>
<div class="scroll" role="region" aria-label="Over seeds"><table class="data">
<tr><th>attack</th><th class="text">family</th><th class="text">metric</th><th>seeds</th>
<th>mean</th><th class="text">95 % interval</th><th>blind</th>
<th class="text">value − blind,<br>95 % interval</th><th class="text">above blind</th></tr>
{% for row in it.rows %}
{% set metric = row.curve.metric %}
<tr><td>{{ row.curve.title }}</td><td class="text">{{ row.curve.family }}</td>
<td class="text">{{ metric }}</td><td>{{ row.seeds }}</td>
<td>{{ row.curve.main.value | of(metric) }}</td>
<td class="text">{{ row.texts[0] }}</td>
<td>{{ row.curve.main.blind_value | of(metric) }}</td>
<td class="text">{{ row.texts[1] }}</td>
<td class="text">{% if row.above %}yes
{%- elif row.excess and row.excess[1] < 0 %}no{% else %}not sure
{%- endif %}</td></tr>
{% endfor %}
</table></div>
<p class="quiet">These runs differ in their seed alone: {{ it.runs | map(attribute="name") |
join(", ") }}. An interval is Student’s, on the seeds’ means over clients and rounds; each attack’s
is its own, not for all together.
{% if it.final_accuracy %}The test accuracy after the last round is
{{ it.final_accuracy[0] | percent }}
{%- if it.final_accuracy[1] %} ({{ it.final_accuracy[1][0] | percent }} to
{{ it.final_accuracy[1][1] | percent }}){% endif %}.{% endif %}</p></section>
{% endfor %}
{% endmacro %}

{% macro defenses(defended, several) %}
<section><h2>Defenses</h2>
<div class="scroll" role="region" aria-label="Table"><table class="data">
<tr>{% if several %}<th>run</th>{% endif %}<th class="text">defense</th>
<th>test<br>accuracy</th>
<th class="text">family</th><th>strongest<br>static</th><th>strongest<br>adaptive</th><th>blind</th>
<th>cosine</th><th>SNR,<br>dB</th><th>upload,<br>KB</th><th>train,<br>s/round</th></tr>
{% for row in defended %}{% for left in row.left or [none] %}
<tr>{% if several %}<td class="run" title="{{ row.run.name }}">{{ row.run.label }}</td>{% endif %}
<td class="text">{{ row.name }}</td><td>{{ row.accuracy | percent }}</td>
{% if left %}
<td class="text">{{ left.family }}</td>
{% for curve, word in ((left.static, left.words[0]), (left.adaptive, left.words[1])) %}
<td>{% if curve %}{{ curve.main.value | of(curve.metric) }}
<span class="mark">{{ curve.attack }}
{%- if curve.answers.counts %}, {{ curve.answers.answered }} of {{ curve.answers.updates }}
{%- endif %}</span>
{%- else %}{{ word }}{% endif %}</td>
{% endfor %}
<td>{% if left.worst %}{{ left.worst.main.blind_value | of(left.worst.metric) }}
{%- else %}–{% endif %}</td>
{% else %}<td>–</td><td>–</td><td>–</td><td>–</td>{% endif %}
<td>{{ row.mean("update_cosine") | number(2) }}</td>
<td>{{ row.mean("update_snr_db") | number(1) }}</td>
<td>{{ row.kilobytes | number(1) }}</td><td>{{ row.seconds | number(2) }}</td></tr>
{% endfor %}{% endfor %}
</table></div>
<p class="quiet">A defense is only as good as it is against the strongest attacker: the larger of
<i>static</i> and <i>adaptive</i> counts. The static attacker knows nothing of the defense. The
adaptive one knows the defense and its options, but not its coins. <i>Failed</i> and <i>refused</i>
mean that no such attack gave an answer: what the defense leaves is then not measured. Beside a
value stands how many updates were answered, if not all. <i>Cosine</i> and <i>SNR</i>
compare the upload with what the client would have uploaded without the defense; – means that the
update is unchanged. <i>Upload</i> is the size of the update in its shortest plain encoding (dense,
sparse or a table of values); Flower itself sends every array dense. <i>Train</i> includes the time
of this comparison, which is a second training for a defense inside training.</p>
{% set promises = {} %}
{% for row in defended if row.kind not in promises or row.epsilon %}
{% if promises.update({row.kind: 1}) %}{% endif %}
<p>{% if row.promise is none %}
<b>{{ row.kind }}</b>: a report imports no code that is not fedsim's, so what this defense promises
is not stated here{% if row.epsilon is not none %}; the run computed
ε = {{ "%.3g" | format(row.epsilon) }} for the most exposed client{% endif %}.
{% elif row.promise.epsilon and row.epsilon is not none %}
<b>{{ row.name }}</b>: formal, towards the server: {{ row.promise.statement }};
{{ row.promise.mechanism }}, neighbours {{ row.promise.relation }};
ε = {{ "%.3g" | format(row.epsilon) }} at δ = {{ "%g" | format(row.promise.delta) }} for the most
exposed client after the last round.
{% elif row.promise.epsilon %}
<b>{{ row.name }}</b>: no guarantee here, because the model's running statistics are uploaded as
they are, or no round was finished.
{% elif row.kind != "none" %}
<b>{{ row.kind }}</b>: heuristic, no guarantee: {{ row.promise.statement }}.
{% endif %}</p>
{% endfor %}
</section>
{% endmacro %}

{% macro attacks(runs, several) %}
<section><h2>Attacks</h2>
{% if runs | selectattr("curves") | list or runs | selectattr("unanswered") | list %}
<div class="scroll" role="region" aria-label="Table"><table class="data">
<tr>{% if several %}<th>run</th>{% endif %}<th class="text">attack</th>
<th class="text">family</th><th class="text">metric</th>
<th>first<br>round</th><th>last<br>round</th>
<th>mean</th><th>blind</th><th>skill</th><th>exact</th><th>precision</th><th>recall</th>
<th>L1/2N</th><th>ms</th></tr>
{% for run in runs %}{% for curve in run.curves %}
<tr>{% if several %}<td class="run" title="{{ run.name }}">{{ run.label }}</td>{% endif %}
<td class="text">{{ curve.title }}
{%- if curve.baseline %} <span class="mark">baseline</span>{% endif %}
{% if curve.answers.counts %} <span class="mark">{{ curve.answers.counts }}</span>{% endif %}</td>
<td class="text">{{ curve.family }}</td><td class="text">{{ curve.metric }}</td>
<td>{{ curve.main.mean[0] | of(curve.metric) }}</td>
<td>{{ curve.main.mean[-1] | of(curve.metric) }}</td>
<td>{{ curve.main.value | of(curve.metric) }}</td>
<td>{{ curve.main.blind_value | of(curve.metric) }}</td>
<td>{{ curve.skill | number(2) }}</td><td>{{ curve.means.get("exact") | percent }}</td>
<td>{{ curve.means.get("precision") | percent }}</td>
<td>{{ curve.means.get("recall") | percent }}</td><td>{{ curve.l1 | percent }}</td>
<td>{{ curve.milliseconds | number(2) }}</td></tr>
{% endfor %}{% for it in run.unanswered %}
<tr>{% if several %}<td class="run" title="{{ run.name }}">{{ run.label }}</td>{% endif %}
<td class="text">{{ it.title }}</td><td class="text">{{ it.family }}</td>
<td class="text" colspan="11"><span class="refuted">{{ it.counts }}</span></td></tr>
{% endfor %}{% endfor %}
</table></div>
<p class="quiet">Attacks are sorted by skill. <i>First round</i>, <i>last round</i> and <i>mean</i>
are values of the metric. <i>Blind</i> is the same metric for the best guess without any update. For
labels, <i>skill</i> = (ASR − chance) / (1 − chance), where chance is the expected ASR of labels
drawn evenly at random. For other families, blind takes the place of chance; for a metric in dB,
skill is the share of the blind guess’s squared error that is gone. <i>Exact</i> is the share of
clients and rounds with every count right; of texts, the share that is recovered token for token.
<i>Precision</i> and <i>recall</i> are those of the
classes named present. <i>L1/2N</i> = 1 − ASR is the error in papers on labels: less is more
leakage. <i>Ms</i> is the time of one attack on one client. All values are means over clients and
rounds. A <i>baseline</i> uses no update. An attack <i>failed</i> on an update if it raised an
error, and <i>refused</i> it if it does not apply to the model or the client. Means leave these
updates out. A failure or a refusal does not show that an update is safe.</p>
{% endif %}
{% for run in runs if not run.curves %}
<p class="quiet">{% if several %}{{ run.label }}: {% endif %}{{ run.why_ungraded }}</p>
{% endfor %}
</section>
{% endmacro %}

{% macro failures(run, kinds, several) %}
<section><h2>Failures{% if several %} of {{ run.label }}{% endif %}</h2>
<div class="scroll" role="region" aria-label="Failures"><table class="data">
<tr><th>what</th><th>times</th><th class="text">clients</th>
<th class="text">rounds</th><th class="text">reason</th></tr>
{% for group in kinds[:50] %}
<tr><td>{{ group.what }}</td><td>{{ group.rows }}</td>
<td class="text">{{ group.clients[:5] | join(", ") }}
{%- if group.clients | length > 5 %} and {{ group.clients | length - 5 }} more{% endif %}</td>
<td class="text">{{ group.rounds }}</td><td class="text long">{{ group.reason }}
{%- if group.alike > 1 %} <span class="mark">and {{ group.alike - 1 }} alike</span>{% endif %}</td>
</tr>
{% endfor %}
</table></div>
{% if kinds | length > 50 %}
<p class="quiet">{{ kinds | length - 50 }} more kinds are in metrics.parquet.</p>
{% endif %}
</section>
{% endmacro %}
"""
