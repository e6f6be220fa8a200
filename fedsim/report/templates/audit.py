"""The page of audits."""

TEMPLATE = """\
{% extends "base" %}
{% import "parts" as parts %}
{% block body %}
<p class="quiet">A mechanism runs many times with and without a record that gives it away (the
canary). A test tells the two apart by the uploads. The errors of the test show how large ε is at
least. Beside it is the ε that the mechanism claims for the same neighbours.</p>
{% for audit in audits %}
<section><h2>{{ audit.setting if audits | length > 1 else "Canaries" }}</h2>
<p class="lines">{{ audit.claimed }}</p>
{% if audit.verdict %}
<p class="refuted">{{ audit.verdict }}.</p>
{% elif audit.claim.epsilon is none %}
<p>The mechanism claims no ε, so nothing can be refuted.</p>
{% else %}
<p>No bound exceeds the claim{% if audit.checks %}, and each defense by itself is what it
claims{% endif %}. {{ audit.conclusion }}</p>
{% endif %}
{% if audit.blunt %}<p>{{ audit.blunt }}.</p>{% endif %}
<div class="picture">{{ pictures[loop.index0].svg | safe }}</div>
<p class="quiet">{{ pictures[loop.index0].caption }}</p>
<div class="scroll" role="region" aria-label="Audits"><table class="data">
<tr><th>canary</th><th>Δ/C</th><th>exact</th>
<th class="text">number</th><th class="text">guarantee</th><th>ε</th><th>all together</th>
<th>claimed</th><th>could show</th><th>runs</th></tr>
{% for row in audit.rows %}
<tr><td>{{ row.canary }}</td><td>{{ row.apart | number(3) }}</td>
<td>{{ row.exact | number(2) }}</td>
<td class="text">{{ names[row.method] }}{% if row.statistic %}: {{ row.statistic }}{% endif %}</td>
<td class="text">{{ row.guarantee }}{% if row.confidence %},
{{ "%g" | format(100 * row.confidence) }} %{% endif %}</td>
<td><b>{{ row.epsilon | number(2) }}</b></td>
<td{% if row.refutes %} class="refuted"{% endif %}>{{ row.joint | number(2) }}</td>
<td>{{ row.claimed | number(2) }}</td><td>{{ row.most | number(2) }}</td>
<td>{{ row.trials }}</td></tr>
{% endfor %}
</table></div>
{% if audit.checks %}
<div class="scroll"><table><tr><th>defense by itself</th><th class="text">measured</th></tr>
{% for check in audit.checks %}
<tr><td>{{ check.link }}</td>
<td class="text long{% if not check.holds %} refuted{% endif %}">{{ check.measured }}</td></tr>
{% endfor %}
</table></div>
{% endif %}
</section>
{% endfor %}
<section><h2>How to read it</h2><p class="quiet"><i>Δ/C</i> is how far the canary moves an update,
in clips. It is at most 1 if the record is added or removed, and at most 2 if it is replaced.
<i>Exact</i> is the ε that the claimed Gaussian mechanism has against this canary. A <i>bound</i> is
at most the true ε, at that confidence, each row by itself. <i>All together</i> is the bound at the
level at which all bounds of all settings hold at once; only this one refutes a claim. A
<i>credible</i> number is the end of an interval of a posterior, not a bound. A <i>learned</i>
statistic is chosen on half of the runs, and the other half is counted. <i>Repeated values</i> are
parts of an upload that are the same in many runs; noise with a density gives none. <i>Could
show</i> is the bound that so many runs would give without any error; if it is below the claim, they
cannot refute it. Neighbours whose record is replaced are up to twice as far apart as neighbours
with one record added or removed. A claim about the latter says less, and is shown
apart.</p></section>
{{ parts.configs(configs) }}
{% endblock %}
"""
