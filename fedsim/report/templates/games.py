"""The page of inference games."""

TEMPLATE = """\
{% extends "base" %}
{% import "parts" as parts %}
{% block body %}
<p class="quiet">Each trial draws a secret. A client uploads, and an honest-but-curious server
scores the secret. The intervals are 95 % intervals over many independent trials.</p>
{% for picture in pictures %}
{{ parts.picture(picture) }}
{% endfor %}
<section><h2>All games</h2>
<div class="scroll" role="region" aria-label="Games"><table class="data">
<tr><th>game</th>{% if settings > 1 %}<th class="text">setting</th>{% endif %}
<th>batch</th><th>rounds</th><th class="text">adversary</th><th>AUROC</th><th>95 %</th>
<th>blind</th><th>imputed</th><th>count<br>ceiling</th><th>promised<br>ceiling</th>
<th>advantage</th><th>TPR at<br>1 %</th><th>TPR at<br>0.1 %</th>
<th>accuracy</th><th>bits</th><th>95 %</th><th>at most</th>
<th>task<br>accuracy</th><th class="text">by</th></tr>
{% for row in lines %}
<tr><td>{{ row.game }}</td>{% if settings > 1 %}<td class="text">{{ row.setting }}</td>{% endif %}
<td>{{ row.batch_size }}</td><td>{{ row.rounds }}</td><td class="text">{{ row.adversary }}</td>
<td><b>{{ row.auroc.value | number(3) }}</b></td>
<td>{{ row.auroc.low | number(3) }} to {{ row.auroc.high | number(3) }}</td>
<td>{{ row.auroc.blind | number(2) }}</td><td>{{ row.auroc.imputation | number(3) }}</td>
<td>{{ row.auroc.records_ceiling | number(3) }}</td>
<td{% if row.promise %} title="{{ row.promise }}"{% endif %}>
{{ row.auroc.promised_ceiling | number(3) }}</td>
{% for metric in ("advantage", "tpr_1", "tpr_01", "accuracy") %}
<td>{{ (row[metric] or {}).value | number(3) }}</td>
{% endfor %}
<td>{{ row.information.value | number(3) }}</td>
<td>{{ row.information.low | number(3) }} to {{ row.information.high | number(3) }}</td>
<td>{{ row.information.ceiling | number(3) }}</td><td>{{ row.task_accuracy | number(3) }}</td>
<td class="text">{{ row.chosen }}
{% if row.defect %}<br><b>{{ row.defect }}</b>{% endif %}</td></tr>
{% endfor %}
</table></div>
<p class="quiet">The <i>static</i> adversary learns from shadow trials without the defense. The
<i>adaptive</i> one learns from shadow trials with the defense too, and is chosen on these.
<i>Imputed</i> is the AUROC of somebody who reads the records without the secret column, and no
upload. No adversary can exceed a <i>ceiling</i>. The <i>count ceiling</i> is what one gets that
reads the number of records with the property exactly. The <i>promised ceiling</i> is what the
defense’s μ or ε allows for the matching neighbours. <i>Bits</i> are the prior entropy minus the
held-out cross-entropy. Above 0 they are a lower bound of the mutual information of secret and
upload (Barber and Agakov). Below 0 they bound nothing: the predictor is worse than the prior.
<i>At most</i> is the lower of two ceilings of that information, by the records and by the promise.
<i>Task accuracy</i> is the model’s, on test records: the defense was on while it trained.
A TPR is shown only if at least 10 false positives would be counted at its FPR.
<i>By</i> names the predictor, which is chosen on shadow trials. A predictor that is below chance on
held-out shadow trials is a defect of the adversary: its score does not show that the defense
protects.</p></section>
{{ parts.configs(configs) }}
{% endblock %}
"""
