"use strict";
// The table of all generations: unpacks the packet, filters, and shows a page of rows. Text from models is only ever
// given to textContent, never parsed.
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
  const small = data.texts.map((text) => text.toLowerCase());
  const questions = data.prompts.map((prompt) => prompt.join(" ").toLowerCase());
  const baseline = data.profiles.indexOf("baseline");
  const before = new Map();
  for (const row of data.rows) if (row[PROFILE] === baseline) before.set(row[PROMPT], row[LABEL]);
  const was = (row) => (row[PROFILE] === baseline ? undefined : before.get(row[PROMPT]));
  const colours = JSON.parse(box("colours").textContent);

  const fill = (select, values) => values.forEach((value, i) => select.add(new Option(value, String(i))));
  fill(box("pick-profile"), data.profiles);
  const order = data.labels.map((label, i) => [label, i]).sort();
  for (const [label, i] of order) for (const id of ["before", "after"]) box(`pick-${id}`).add(new Option(label, String(i)));

  let shown = [];
  let page = 0;
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
  const draw = () => {
    const body = box("rows").tBodies[0];
    body.replaceChildren();
    for (const row of shown.slice(page * PAGE, page * PAGE + PAGE)) {
      const line = element("tr");
      line.tabIndex = 0;
      const question = element("td");
      question.append(element("bdi", "", data.prompts[row[PROMPT]][1]));
      const labels = element("td");
      const earlier = was(row);
      if (earlier !== undefined && earlier !== row[LABEL]) labels.append(tag(earlier), " → ");
      labels.append(tag(row[LABEL]));
      const answer = element("td");
      answer.append(element("bdi", "model", data.texts[row[TEXT]]));
      line.append(question, element("td", "", data.profiles[row[PROFILE]]), labels, answer);
      const open = () => {
        line.classList.toggle("open");
        if (!answer.lastChild.classList.contains("soft")) {
          const rules = data.rules[row[RULES]];
          answer.append(element("span", "soft small", `${data.prompts[row[PROMPT]][0]}${rules ? ` · judged by: ${rules}` : ""}`));
        }
      };
      line.addEventListener("click", () => String(getSelection()) || open());
      line.addEventListener("keydown", (event) => event.key === "Enter" && open());
      body.append(line);
    }
    const pages = Math.max(1, Math.ceil(shown.length / PAGE));
    box("count").textContent = `${shown.length.toLocaleString("en")} of ${data.rows.length.toLocaleString("en")} generations`;
    box("page").textContent = `page ${page + 1} of ${pages}`;
    box("back").disabled = page === 0;
    box("next").disabled = page + 1 >= pages;
  };
  const filter = () => {
    const words = box("pick-words").value.toLowerCase().split(/\s+/).filter(Boolean);
    const pick = (id) => (box(`pick-${id}`).value === "" ? undefined : Number(box(`pick-${id}`).value));
    const [profile, first, last] = [pick("profile"), pick("before"), pick("after")];
    const changed = box("pick-changed").value === "changed";
    shown = data.rows.filter((row) =>
      (profile === undefined || row[PROFILE] === profile) &&
      (last === undefined || row[LABEL] === last) &&
      (first === undefined || before.get(row[PROMPT]) === first) &&
      (!changed || (was(row) !== undefined && was(row) !== row[LABEL])) &&
      words.every((word) => small[row[TEXT]].includes(word) || questions[row[PROMPT]].includes(word)));
    page = 0;
    draw();
  };
  let waiting;
  box("pick-words").addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(filter, 150); });
  for (const id of ["profile", "before", "after", "changed"]) box(`pick-${id}`).addEventListener("change", filter);
  box("back").addEventListener("click", () => { page -= 1; draw(); });
  box("next").addEventListener("click", () => { page += 1; draw(); });
  filter();
})();
