"use strict";
// The contents that stay in sight, and the table of all generations: it unpacks the packet, filters, sorts, unfolds a
// row beside the untouched model's answer, and finds a row by its link. Text from models is only ever given to
// textContent, never parsed.
(() => {
  const links = new Map([...document.querySelectorAll("nav a")].map((one) => [one.hash.slice(1), one]));
  const heads = [...document.querySelectorAll("h2")];
  const follow = () => {
    const line = innerHeight / 3;
    const now = heads.filter((one) => one.getBoundingClientRect().top < line).pop();
    for (const [id, link] of links) {
      if (now && now.id === id) link.setAttribute("aria-current", "true");
      else link.removeAttribute("aria-current");
    }
  };
  addEventListener("scroll", follow, { passive: true });
  follow();
})();
(async () => {
  const packet = document.getElementById("packet");
  const box = (id) => document.getElementById(id);
  if (!packet) return;
  if (typeof DecompressionStream === "undefined") {
    box("count").textContent = "This browser cannot unpack the table; `mote export` writes all generations as files.";
    return;
  }
  const bytes = Uint8Array.from(atob(packet.textContent.trim()), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  const data = JSON.parse(await new Response(stream).text());
  const PAGE = 25;
  const [PROMPT, PROFILE, LABEL, TEXT, RULES] = [0, 1, 2, 3, 4];
  const [ID, QUESTION, UNIT] = [0, 1, 2];
  const small = data.texts.map((text) => text.toLowerCase());
  const questions = data.prompts.map((prompt) => `${prompt[ID]} ${prompt[QUESTION]}`.toLowerCase());
  const baseline = data.profiles.indexOf("baseline");
  const untouched = new Map();
  for (const row of data.rows) if (row[PROFILE] === baseline) untouched.set(row[PROMPT], row);
  const before = (row) => untouched.get(row[PROMPT]);
  const changed = (row) => row[PROFILE] !== baseline && before(row) !== undefined && before(row)[LABEL] !== row[LABEL];
  const colours = JSON.parse(box("colours").textContent);

  const fill = (id, values) => {
    const order = values.map((value, i) => [value, i]);
    if (id !== "pick-profile") order.sort();
    for (const [value, i] of order) box(id).add(new Option(value, String(i)));
  };
  fill("pick-profile", data.profiles);
  if (box("pick-unit")) fill("pick-unit", data.units);
  for (const id of ["pick-before", "pick-after"]) fill(id, data.labels);

  const texts = {
    question: (row) => data.prompts[row[PROMPT]][QUESTION],
    profile: (row) => data.profiles[row[PROFILE]],
    label: (row) => data.labels[row[LABEL]],
    answer: (row) => data.texts[row[TEXT]],
  };
  const compare = new Intl.Collator("en", { numeric: true }).compare;
  let shown = [];
  let page = 0;
  let down = false;
  const element = (name, className, text) => {
    const made = document.createElement(name);
    if (className) made.className = className;
    if (text !== undefined) made.textContent = text;
    return made;
  };
  const tag = (label) => {
    const made = element("span", "tag", data.labels[label]);
    made.style.setProperty("--dot", colours[data.labels[label]] || "#9aa2ad");
    return made;
  };
  const linkOf = (row) =>
    `#row/${encodeURIComponent(texts.profile(row))}/${encodeURIComponent(data.prompts[row[PROMPT]][ID])}`;
  const side = (row, name) => {
    const made = element("div", "side");
    const head = element("p", "", `${name} `);
    head.append(tag(row[LABEL]));
    const text = element("bdi", "model", texts.answer(row));
    text.tabIndex = 0;
    text.setAttribute("role", "group");
    text.setAttribute("aria-label", `Answer, ${name}`);
    made.append(head, text);
    const rules = data.rules[row[RULES]];
    if (rules) made.append(element("p", "small", `judged by: ${rules}`));
    return made;
  };
  const detail = (row) => {
    const line = element("tr", "detail");
    const cell = element("td");
    cell.colSpan = 4;
    const pair = element("div", "pair");
    if (row[PROFILE] !== baseline && before(row)) pair.append(side(before(row), "untouched"));
    pair.append(side(row, row[PROFILE] === baseline ? "untouched" : texts.profile(row)));
    const link = element("a", "small", `Link to this answer (${data.prompts[row[PROMPT]][ID]})`);
    link.href = linkOf(row);
    cell.append(pair, link);
    line.append(cell);
    return line;
  };
  const lineOf = (row) => {
    const line = element("tr", "row");
    const question = element("td");
    const button = element("button");
    button.type = "button";
    button.setAttribute("aria-expanded", "false");
    button.append(element("bdi", "", texts.question(row)));
    question.append(button);
    const labels = element("td");
    if (changed(row)) labels.append(tag(before(row)[LABEL]), " → ");
    labels.append(tag(row[LABEL]));
    const answer = element("td");
    answer.append(element("bdi", "model", texts.answer(row)));
    line.append(question, element("td", "", texts.profile(row)), labels, answer);
    const toggle = () => {
      const open = line.classList.toggle("open");
      button.setAttribute("aria-expanded", String(open));
      if (open) line.after(detail(row));
      else line.nextSibling.remove();
    };
    line.addEventListener("click", () => String(getSelection()) || toggle());
    return [line, toggle];
  };
  const draw = () => {
    const made = shown.slice(page * PAGE, page * PAGE + PAGE).map(lineOf);
    box("rows").tBodies[0].replaceChildren(...made.map(([line]) => line));
    const pages = Math.max(1, Math.ceil(shown.length / PAGE));
    box("count").textContent = `${shown.length.toLocaleString("en")} of ${data.rows.length.toLocaleString("en")} generations`;
    box("page").textContent = `page ${page + 1} of ${pages}`;
    box("back").disabled = page === 0;
    box("next").disabled = page + 1 >= pages;
    return made;
  };
  const select = () => {
    const words = box("pick-words").value.toLowerCase().split(/\s+/).filter(Boolean);
    const pick = (id) => (!box(id) || box(id).value === "" ? undefined : Number(box(id).value));
    const [profile, unit, first, last] = ["pick-profile", "pick-unit", "pick-before", "pick-after"].map(pick);
    shown = data.rows.filter((row) =>
      (profile === undefined || row[PROFILE] === profile) &&
      (unit === undefined || data.prompts[row[PROMPT]][UNIT] === unit) &&
      (last === undefined || row[LABEL] === last) &&
      (first === undefined || (before(row) !== undefined && before(row)[LABEL] === first)) &&
      (box("pick-changed").value !== "changed" || changed(row)) &&
      words.every((word) => small[row[TEXT]].includes(word) || questions[row[PROMPT]].includes(word)));
    const by = texts[box("pick-order").value];
    if (by) shown.sort((a, b) => (down ? compare(by(b), by(a)) : compare(by(a), by(b))));
    for (const one of document.querySelectorAll("#rows .sort")) {
      const mine = one.dataset.order === box("pick-order").value;
      one.parentNode.setAttribute("aria-sort", mine ? (down ? "descending" : "ascending") : "none");
    }
    page = 0;
  };
  const filter = () => { select(); draw(); };
  const reset = () => {
    for (const one of document.querySelectorAll(".controls select, .controls input")) one.value = "";
    down = false;
    select();
  };
  const find = () => {
    const [, profile, id] = location.hash.startsWith("#row/") ? location.hash.split("/") : [];
    if (id === undefined) return;
    let wanted;
    try {
      wanted = [decodeURIComponent(profile), decodeURIComponent(location.hash.split("/").slice(2).join("/"))];
    } catch {
      return;
    }
    reset();
    const place = shown.findIndex((row) => texts.profile(row) === wanted[0] && data.prompts[row[PROMPT]][ID] === wanted[1]);
    if (place < 0) { draw(); return; }
    page = Math.floor(place / PAGE);
    const [line, toggle] = draw()[place % PAGE];
    toggle();
    line.scrollIntoView();
    line.querySelector("button").focus({ preventScroll: true });
  };
  let waiting;
  box("pick-words").addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(filter, 150); });
  for (const one of document.querySelectorAll(".controls select")) {
    one.addEventListener("change", () => { if (one.id === "pick-order") down = false; filter(); });
  }
  for (const one of document.querySelectorAll("#rows .sort")) {
    one.addEventListener("click", () => {
      down = box("pick-order").value === one.dataset.order && !down;
      box("pick-order").value = one.dataset.order;
      filter();
    });
  }
  box("back").addEventListener("click", () => { page -= 1; draw(); });
  box("next").addEventListener("click", () => { page += 1; draw(); });
  box("reset").addEventListener("click", () => { reset(); draw(); });
  addEventListener("hashchange", find);
  filter();
  find();
})();
