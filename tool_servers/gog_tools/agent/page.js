// The page of `gog serve agent`: sends one chat with its trace and shows each step as it arrives. What the model and the
// tools wrote is inserted as text only.
"use strict";

const at = (id) => document.getElementById(id);
const WORDS = {
  glance: () => "glances at the whole image",
  ground: (step) => `looks for “${step.argument}”`,
  gaze: (step) => `gazes at ${step.selected.map((number) => `#${number}`).join(", ")}`,
  text: (step) => `searches for “${step.argument}”`,
  ocr: () => "reads the text in the image",
  answer: () => "answers",
  none: () => "writes no action",
};
let image = null;
let running = null;

function element(name, className, text) {
  const made = document.createElement(name);
  made.className = className;
  made.textContent = text;
  return made;
}

async function take(file) {
  if (!file || !file.type.startsWith("image/")) return;
  image = await new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(file);
  });
  at("image").src = image;
  at("hint").style.display = "none";
  at("seen").style.display = "block";
  at("boxes").replaceChildren();
}

// Candidates keep their numbers, so earlier boxes stay; an offer that begins at 1 replaces those before. Boxes inside images
// that a search returned have no place here.
function drawBoxes(candidates) {
  const shown = at("image");
  const svg = at("boxes");
  svg.setAttribute("viewBox", `0 0 ${shown.naturalWidth} ${shown.naturalHeight}`);
  if (candidates[0].number === 1) svg.replaceChildren();
  svg.append(...candidates.filter((each) => !each.image).map((each) => {
    const [x0, y0, x1, y1] = each.box;
    const box = document.createElementNS("http://www.w3.org/2000/svg", "rect");
    for (const [name, value] of Object.entries({ x: x0, y: y0, width: x1 - x0, height: y1 - y0 })) box.setAttribute(name, value);
    box.setAttribute("class", "box");
    box.dataset.number = each.number;
    return box;
  }));
}

function showStep(step) {
  let item = at("steps").querySelector(`[data-turn="${step.turn}"]`);
  if (!item) {
    item = document.createElement("li");
    item.dataset.turn = step.turn;
    at("steps").append(item);
  }
  item.className = step.stage === "acting" && step.action !== "answer" ? "waiting" : "";
  const parts = [element("div", "what", (WORDS[step.action] || WORDS.none)(step))];
  if (step.reasoning) parts.unshift(element("div", "why", step.reasoning));
  const seen = step.observation;
  if (seen) {
    if (seen.candidates.length) drawBoxes(seen.candidates);
    const failed = seen.failures.length > 0;
    const text = failed ? `the tool failed: ${seen.failures.join(", ")}` : seen.text;
    parts.push(element("div", failed ? "got bad" : "got", text));
  }
  for (const number of step.selected) {
    const box = at("boxes").querySelector(`[data-number="${number}"]`);
    if (box) box.classList.add("chosen");
  }
  item.replaceChildren(...parts);
}

function showAnswer(text, pages, failed) {
  const card = at("answer");
  card.style.display = "block";
  card.querySelector(".text").textContent = text;
  card.querySelector(".text").classList.toggle("bad", Boolean(failed));
  card.querySelector(".pages").replaceChildren(...pages.map((page) => {
    const line = document.createElement("div");
    const link = element("a", "", page.title || page.url);
    link.href = page.url;
    link.rel = "noopener noreferrer";
    link.target = "_blank";
    line.append(link);
    return line;
  }));
}

function read(event) {
  if (event.error) return showAnswer(event.error.message, [], true);
  if (event.gog_step) showStep(event.gog_step);
  const delta = event.choices && event.choices[0] ? event.choices[0].delta : {};
  if (delta.content) showAnswer(delta.content, (delta.annotations || []).map((each) => each.url_citation), false);
}

async function ask(question, signal) {
  const content = [{ type: "image_url", image_url: { url: image } }, { type: "text", text: question }];
  const headers = { "content-type": "application/json" };
  if (at("key").value) headers.authorization = `Bearer ${at("key").value}`;
  const body = JSON.stringify({ messages: [{ role: "user", content }], stream: true, trace: true });
  const answer = await fetch("/v1/chat/completions", { method: "POST", headers, body, signal });
  if (!answer.ok) {
    const refused = await answer.json().catch(() => ({}));
    throw new Error(refused.error ? refused.error.message : `status ${answer.status}`);
  }
  let rest = "";
  const stream = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  for (;;) {
    const { done, value } = await stream.read();
    if (done) return;
    const events = (rest + value).split("\n\n");
    rest = events.pop();
    for (const each of events) if (each.startsWith("data: ") && each !== "data: [DONE]") read(JSON.parse(each.slice(6)));
  }
}

at("ask").addEventListener("submit", async (event) => {
  event.preventDefault();
  if (running) return; // Enter, while an answer is awaited
  if (!image) return showAnswer("Choose an image first.", [], true);
  at("steps").replaceChildren();
  at("boxes").replaceChildren();
  at("answer").style.display = "none";
  at("send").disabled = true;
  at("stop").hidden = false;
  running = new AbortController();
  try {
    await ask(at("question").value, running.signal);
  } catch (error) {
    showAnswer(error.name === "AbortError" ? "Stopped." : error.message, [], error.name !== "AbortError");
  } finally {
    running = null;
    for (const item of at("steps").querySelectorAll(".waiting")) item.classList.remove("waiting");
    at("send").disabled = false;
    at("stop").hidden = true;
  }
});
at("stop").addEventListener("click", () => running && running.abort());
at("file").addEventListener("change", (event) => take(event.target.files[0]));
for (const name of ["dragover", "dragenter"]) at("drop").addEventListener(name, () => at("drop").classList.add("over"));
for (const name of ["dragleave", "drop"]) at("drop").addEventListener(name, () => at("drop").classList.remove("over"));
document.addEventListener("paste", (event) => take([...event.clipboardData.files][0]));
at("question").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    at("ask").requestSubmit();
  }
});
