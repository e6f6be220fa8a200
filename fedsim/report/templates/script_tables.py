"""The script of every page: the theme, and tables that can be sorted and filtered."""

SCRIPT = r"""
"use strict";
const root = document.documentElement;
const el = (tag, attributes, ...children) => {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {}))
    name.startsWith("on") ? node.addEventListener(name.slice(2), value)
      : value !== false && node.setAttribute(name, value === true ? "" : value);
  node.append(...children);
  return node;
};
const listeners = [];  // called when the theme changes
const dark = () => root.dataset.theme === "dark"
  || root.dataset.theme !== "light" && matchMedia("(prefers-color-scheme: dark)").matches;

function themes() {
  const button = el("button", {type: "button", id: "theme", onclick: () => set(!dark())});
  const label = () => { button.textContent = dark() ? "Light" : "Dark";
    button.setAttribute("aria-label", `Switch to the ${dark() ? "light" : "dark"} theme`); };
  const set = on => {
    root.dataset.theme = on ? "dark" : "light";
    try { localStorage.setItem("fedsim-theme", root.dataset.theme); } catch (error) { /* file: */ }
    label(); listeners.forEach(listener => listener());
  };
  try { const kept = localStorage.getItem("fedsim-theme"); if (kept) root.dataset.theme = kept; }
  catch (error) { /* no storage for this page */ }
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change",
    () => { label(); listeners.forEach(listener => listener()); });
  label();
  document.querySelector("header").append(button);
}

// A cell's number, or its text; what has neither is last in any order.
function key(row, column) {
  const cell = row.cells[column], text = cell ? cell.innerText.trim() : "";
  if (!text || text === "–" || cell.colSpan > 1) return null;
  const number = text.replace(/^[<>≥≤≈]\s*/, "").match(/^[−-]?\d[\d,]*\.?\d*(e[+-]?\d+)?/i);
  if (!number || cell.classList.contains("text")) return isNaN(text) ? text : Number(text);
  return Number(number[0].replace("−", "-").replace(/,/g, ""));
}

function compare(a, b, sign) {
  if (a === null || b === null) return (a === null) - (b === null);
  if (typeof a === "number" && typeof b === "number") return sign * (a - b);
  return sign * String(a).localeCompare(String(b), undefined, {numeric: true});
}

function sortable(table) {
  const [head] = table.rows, body = () => [...table.rows].slice(1);
  [...head.cells].forEach((th, column) => {
    if (!th.textContent.trim()) return;
    const button = el("button", {type: "button", class: "sort", title: "Sort by this column"});
    button.append(...th.childNodes);
    th.append(button);
    button.addEventListener("click", () => {
      const first = th.classList.contains("text") ? "ascending" : "descending";
      const other = first === "ascending" ? "descending" : "ascending";
      const order = th.getAttribute("aria-sort") === first ? other : first;
      for (const each of head.cells) each.removeAttribute("aria-sort");
      th.setAttribute("aria-sort", order);
      const sign = order === "ascending" ? 1 : -1;
      const keyed = body().map(row => [key(row, column), row]);
      keyed.sort((a, b) => compare(a[0], b[0], sign));
      head.after(...keyed.map(pair => pair[1]));
    });
  });
  if (table.rows.length > 9) filterable(table, body);
}

function filterable(table, body) {
  const count = el("span", {class: "quiet", role: "status"});
  const input = el("input", {type: "search", placeholder: "words in a row"});
  const apply = () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of body()) {
      const text = row.innerText.toLowerCase() || row.textContent.toLowerCase();
      row.hidden = !words.every(word => text.includes(word));
      shown += !row.hidden;
    }
    count.textContent = words.length ? `${shown} of ${body().length} rows` : "";
  };
  input.addEventListener("input", apply);
  const place = table.closest(".scroll") || table;
  place.before(el("p", {class: "filter"}, el("label", {}, "Filter rows ", input), " ", count));
}

// A box that scrolls says so, and can be reached by keyboard.
function scrollable(box) {
  const what = box.classList.contains("picture") ? "picture" : "table";
  const hint = el("p", {class: "hint", hidden: true}, `The ${what} goes on to the right: scroll →`);
  box.before(hint);
  const check = () => {
    const wide = box.scrollWidth > box.clientWidth + 1;
    hint.hidden = !wide;
    if (wide) box.setAttribute("tabindex", "0"); else box.removeAttribute("tabindex");
  };
  new ResizeObserver(check).observe(box);
}

themes();
document.querySelectorAll("table.data").forEach(sortable);
document.querySelectorAll(".scroll, .picture").forEach(scrollable);
"""
