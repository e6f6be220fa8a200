"""The interactive part of the run report: what its script fills, and what it fills it from."""

TEMPLATE = """\
{% macro section() %}
<section id="explore" aria-label="Interactive charts" hidden>
<h2 id="lines-title"></h2>
<div class="controls" id="controls"></div>
<div class="plot" id="lines" role="img"></div>
<p class="quiet"><span id="lines-caption"></span> Point at a chart for values. Drag to zoom in,
double-click to zoom out. Click a name to hide or show its line. Values that are not above the
dashed blind guess are no leakage.</p>
<details><summary class="quiet">The values as a table</summary>
<div class="scroll tall" role="region" aria-label="Values over rounds" id="lines-values"></div>
</details>
<h3>Test accuracy</h3>
<div class="plot" id="accuracy" role="img"></div>
<div id="map-part">
<h3>Clients and rounds</h3>
<div class="controls" id="map-controls"></div>
<div class="plot" id="map" role="img"></div>
<p id="map-cell" role="status">&nbsp;</p>
<p class="quiet" id="map-scale"></p>
<h3>In which round each client leaked most</h3>
<div id="clients"></div>
<p class="quiet">For the attack chosen above. <i>Leaked most</i> is the round in which the value is
farthest above the client’s blind guess.</p>
</div>
</section>
{% endmacro %}

{% macro script(payload, library) %}
<style>{{ library.style | safe }}</style>
<script type="application/json" id="data">{{ payload | safe }}</script>
<!-- {{ library.name }} {{ library.version }}
{{ library.licence }} -->
<script>{{ library.script | safe }}</script>
<script>{{ charts | safe }}</script>
{% endmacro %}
"""
