"use strict";

const { read, nothing, illegible, images, column, results } = document.body.dataset;
const savedIn = document.body.dataset.saved; // the file in which a server saves the answers, if one does
let storageKey = `digitq ${results}`; // and the initials of who reads blind
let initials;
const typed = read === "number" ? /[0-9½¼¾ .,\-+/:%]/ : /[0-9]/; // an answer's characters
const all = [...document.querySelectorAll(".card")];
const ids = new Map(all.map((card) => [card, JSON.parse(card.dataset.id)]));
const rulesOf = new Map(); // card → the keys of the rules of the form that fail for it
const cardOf = new Map(all.map((card) => [ids.get(card), card]));
const homes = new Map(all.map((card) => [card, card.parentElement])); // outside of the grid
const WAIT_MS = 5000; // a server that says nothing for so long can't be reached
const touch = matchMedia("(pointer: coarse)");
const part = (selector, within = document) => within.querySelector(selector);

let given = new Map(); // id → the right answer, "" for no digit, or nothing written
const saved = new Map(); // those that a server has saved
// id → { answer, known, isSent, isContested }: `answer` is null if it is taken back; `known` are those
// that it may replace, by what this page knows
let unsaved = new Map();
let socket; // to the server; undefined if there is none
let isConnected = false; // whether the server has told all
let theirs; // the ids of the cards at which other people are, once the server has told it
let isSending = false; // whether what was sent has no reply yet
let cards = []; // those of the group or cell that is chosen, and the other cells of their rows
let current;

function load() {
  tryStorage(() => {
    const kept = JSON.parse(localStorage.getItem(storageKey) ?? "{}");
    unsaved = new Map([...unsaved, ...(kept.unsaved ?? [])]); // another tab may have some
  });
  merge();
  for (const card of all) show(card);
  showProgress();
}

function keep() {
  tryStorage(() => localStorage.setItem(storageKey, JSON.stringify({ unsaved: [...unsaved] })));
}

function tryStorage(use) {
  try {
    use();
  } catch {
    say(`This browser keeps nothing: ${savedIn ? "wait until all is saved" : "save"} before you close the page`);
  }
}

/** Whether a card is chosen, not only in the same row of a table as one that is. */
function isWanted(card) {
  return !card.classList.contains("beside");
}

/** Whether a card is in a refused page that is shown as one: its fields are out of sight. */
function isFolded(card) {
  return card.closest("details:not([open])") !== null;
}

/** The shown cells of a card's row of a table, or the card alone. */
function rowOf(card) {
  const line = card.closest(".line");
  return line ? cards.filter((one) => line.contains(one)) : [card];
}

/** Whether a card has an answer that nobody contests. */
function isDone(card) {
  const id = ids.get(card);
  return given.has(id) && !unsaved.get(id)?.isContested;
}

function nameOf(card) {
  return [homes.get(card).ariaLabel, part("h3", card).textContent].filter(Boolean).join("/");
}

function say(text) {
  part("#said").textContent = text;
}

function show(card, isNew) {
  const id = ids.get(card);
  const answer = given.get(id);
  const isGiven = given.has(id);
  const isSame = isGiven && answer === card.dataset.answer;
  card.classList.toggle("done", isGiven);
  card.classList.toggle("changed", isGiven && !isSame);
  const field = part("input", card);
  part(".given", card).textContent = !isGiven ? "" : isSame ? "✓" : answer || nothing;
  if (field && (isNew || field !== document.activeElement)) field.value = answer?.replace(illegible, "") ?? "";
  for (const button of card.querySelectorAll("[data-give]"))
    button.setAttribute("aria-pressed", isGiven && button.dataset.give === answer);
  for (const button of card.querySelectorAll("[data-option]"))
    button.setAttribute("aria-pressed", isGiven && answer?.split(",").includes(button.dataset.option));
  if (savedIn) showContest(card);
}

/** Show the rules of the form that fail for a card, and those that hold with the answers only. */
function showRules(card, rules) {
  rulesOf.set(card, rules.map(([rule]) => rule).filter(Boolean));
  const failed = JSON.parse(card.dataset.rules ?? "[]"); // before there were answers
  const mended = failed.filter((one) => one[1] && !rules.some(([, , title]) => title === one[2]));
  const made = [...rules.filter(([, text]) => text), ...mended].map((one) => {
    const code = document.createElement("code");
    code.className = mended.includes(one) ? "true" : "why";
    code.textContent = mended.includes(one) ? `✓ ${one[2]}` : one[1];
    code.title = one[2];
    return code;
  });
  part(".rules", card).replaceChildren(...made);
  const button = part("[data-wrong]", card);
  if (button) button.hidden = !rules.some(([rule, text]) => rule && text);
}

function showProgress() {
  const wanted = cards.filter(isWanted);
  const done = wanted.filter(isDone).length;
  part("#progress").max = Math.max(wanted.length, 1);
  part("#progress").value = done;
  const left = all.filter((card) => card.dataset.groups.split(" ").includes("review") && !isDone(card)).length;
  const end = left ? `; ${left} more to review` : savedIn ? ": all done" : "";
  part("#count").textContent = `${done} of ${wanted.length}${done === wanted.length ? end : ""}`;
  if (savedIn) return showSaved();
  part("#save").disabled = !given.size;
}

function give(card, answer, isTyped) {
  const id = ids.get(card);
  const was = card.dataset.answer;
  const name = nameOf(card);
  if (answer === undefined && !given.has(id) && !unsaved.get(id)?.isContested) return say(`${name}: there is nothing to take back`);
  ask(id, answer ?? null, isTyped);
  keep();
  if (card.closest(".answers")) card.classList.remove("large"); // a look at the other ones
  show(card, true);
  showProgress();
  if (answer === undefined) say(`${name}: taken back`);
  else if (answer === was) say(`${name}: ${answer || nothing} confirmed`);
  else say(`${name}: ${answer || nothing}${was ? ` instead of ${was}` : ""}`);
}

/** Give the current card an answer by a key. The card may be out of sight. */
function giveByKey(answer) {
  give(current, answer);
  current.scrollIntoView({ block: "nearest" });
}

/** Choose an option by its letter: where only one may be marked, the next card comes, as by a tap. */
function chooseByKey({ dataset }) {
  giveByKey(chooseOption(current, dataset));
  if (dataset.option === undefined) goTo(nextAfter(current));
}

/** Say by a key that there is nothing to read, or that nobody can: after a question, the next card comes as by its options. */
function refuseByKey(answer) {
  giveByKey(answer);
  if (read === "number" && !part("input", current)) goTo(nextAfter(current));
}

function select(card, focus = true) {
  if (current) {
    if (current !== card) show(current), current.classList.remove("large");
    current.removeAttribute("aria-current");
    current.tabIndex = -1;
  }
  current = card;
  tellPlace();
  showPage();
  if (!card) return;
  card.setAttribute("aria-current", "true");
  if (!part("input", card)) card.tabIndex = 0; // a number's field takes the focus
  if (!focus) return;
  // On a phone, the keys would cover half of the page
  if (part("input", card) && (!touch.matches || document.activeElement.matches(".card input"))) enter(card);
  else card.focus({ preventScroll: true });
  card.scrollIntoView({ block: "center" });
}

/** The answer if a button or a key chooses an option: of a question with several answers, it is put
 * to the others, or taken away. */
function chooseOption(card, { give, option }) {
  if (option === undefined) return give;
  const answer = (given.get(ids.get(card)) ?? card.dataset.answer ?? "").replace(illegible, "");
  const marked = answer.split(",").filter((one) => one && one !== option);
  if (!answer.split(",").includes(option)) marked.push(option);
  const options = [...card.querySelectorAll("[data-option]")].map((one) => one.dataset.option);
  return options.filter((one) => marked.includes(one)).join(",");
}

/** The button of the only option that begins with a key. */
function findOption(card, key) {
  const options = [...card.querySelectorAll(".number:not(:has(input)) button:not(.none)")];
  const found = options.filter((one) => one.textContent.toLowerCase().startsWith(key));
  return found.length === 1 ? found[0] : undefined;
}

/** Let the keys go to a number's field. What is typed replaces what it has. */
function enter(card) {
  part("input", card).focus({ preventScroll: true });
  part("input", card).select();
}

/** Change from a phone's keypad to a keyboard that has all signs, and back. */
function changeKeys(button) {
  const isPressed = button.getAttribute("aria-pressed") !== "true";
  button.setAttribute("aria-pressed", isPressed);
  for (const field of document.querySelectorAll(".card input"))
    field.inputMode = isPressed ? "text" : field.dataset.keys;
  if (current) part("input", current)?.focus({ preventScroll: true });
}

function nextAfter(card) {
  const after = cards.slice(cards.indexOf(card) + 1).filter(isWanted);
  if (!savedIn) return after.find((one) => !isFolded(one)) ?? after[0];
  const isOpen = (one) => isWanted(one) && !isDone(one); // another person may have answered some
  const inSight = (one) => isOpen(one) && !isFolded(one);
  const isFree = (one) => inSight(one) && !isTheirs(one); // if none is left, people meet
  return [...after, ...cards].find(isFree) ?? after.find(inSight) ?? cards.find(inSight) ?? cards.find(isOpen);
}

function goTo(next) {
  next?.closest("details")?.setAttribute("open", "");
  if (next) return select(next);
  const others = document.querySelectorAll("[data-group=sample][aria-pressed=false]");
  const rest = [...others].map((tab) => `; ${part("span", tab).textContent} more under ${tab.firstChild.textContent.trim()}`);
  say(`${savedIn ? "That was the last one" : "That was the last one: save corrections.csv"}${rest.join("")}`);
}

/** Put the chosen cards into a grid by their answers, or into the order of the draw, or all cards
 * back to their places. */
function arrange(group) {
  if (part(".gathered")) for (const card of all) homes.get(card).append(card);
  for (const section of document.querySelectorAll(".gathered")) section.remove();
  if (group === "sample") {
    cards.sort((a, b) => a.dataset.drawn - b.dataset.drawn);
    gather("drawn").append(...cards);
  }
  if (group !== "answers") return;
  const answerOf = (card) => card.dataset.answer ?? "";
  cards.sort((a, b) => answerOf(a).localeCompare(answerOf(b), "en", { numeric: true }));
  let list, answer;
  for (const card of cards) {
    if (!list || (read === "digit" && answer !== answerOf(card))) {
      answer = answerOf(card);
      list = gather("answers", read === "digit" ? answer || nothing : "");
    }
    list.append(card);
  }
}

/** A new list at the end of the page, for cards that are taken from their places. */
function gather(kind, title = "") {
  const section = document.createElement("section");
  section.className = `sheet gathered ${kind}`;
  section.innerHTML = '<h3></h3><ol class="cards"></ol>';
  section.firstChild.textContent = title;
  part("#review").append(section);
  return section.lastChild;
}

function choose(pressed, match, title, note, focus = true) {
  arrange();
  for (const button of document.querySelectorAll("[data-group], .matrix button"))
    button.setAttribute("aria-pressed", button === pressed);
  const place = (card) => (note !== "sample" && card.closest(".line")) || card;
  const places = new Set(all.filter(match).map(place));
  const rules = new Set(note === "sample" ? [] : all.filter(match).flatMap((card) => rulesOf.get(card)));
  cards = all.filter((card) => places.has(place(card)) || rulesOf.get(card).some((rule) => rules.has(rule)));
  for (const card of all) card.hidden = true;
  for (const card of cards) (card.hidden = false), card.classList.toggle("beside", !match(card));
  arrange(note);
  part("#shown").textContent = title;
  for (const one of document.querySelectorAll("[data-note]")) one.hidden = one.dataset.note !== note;
  const inSight = cards.filter((card) => !isFolded(card));
  const first = inSight.find((card) => isWanted(card) && !isDone(card)) ?? inSight[0];
  showProgress();
  select(first, focus);
}

function chooseGroup(button, focus) {
  const group = button.dataset.group;
  const isIn = (card) => card.dataset.groups.split(" ").includes(group);
  choose(button, isIn, button.firstChild.textContent.trim(), group, focus);
}

function chooseCell(button) {
  const { truth, answer, count } = button.dataset;
  const isIn = (card) => card.dataset.truth === truth && card.dataset.answer === answer;
  choose(button, isIn, `${truth} read as ${answer}`, "cell");
  const isPart = cards.length < count;
  part('[data-note="cell"]').textContent = isPart ? `This page has ${cards.length} of ${count}.` : `${count} in all.`;
}

function search(text) {
  if (!text) return chooseGroup(part("[data-group]"), false);
  const isIn = (card) => ids.get(card).toLowerCase().includes(text.toLowerCase());
  choose(undefined, isIn, `Found: ${text}`, "cell", false);
  const found = cards.filter(isWanted).length;
  part('[data-note="cell"]').textContent = `${found} of the ${all.length} on this page; the table has ${images}.`;
}

/** Confirm what the writer has written wrongly: all that these rules bind, as it is read. */
function confirmRules(rules) {
  const bound = cards.filter((card) => rulesOf.get(card).some((rule) => rules.includes(rule)));
  if (!bound.length) return say("No rule fails here");
  confirm(bound, "all of the rule");
}

/** Confirm the answers of these cards, else of the current one and all of its row, and go on. */
function confirm(row = rowOf(current), what = "all of the row") {
  for (const card of row) {
    const { answer } = card.dataset;
    if (!given.has(ids.get(card)) && !part("input", card)?.value && answer !== undefined) give(card, answer);
  }
  const open = row.find((card) => !given.has(ids.get(card)));
  if (open) {
    select(open);
    const text = part("input", open)?.value;
    if (text) return say(`${text} is no number: it has no digit, or more than 20`);
    return say(`There is no answer to confirm: type it, or x for ${nothing}`);
  }
  if (row.length > 1) say(`${[homes.get(current).ariaLabel, what].filter(Boolean).join(": ")} confirmed`);
  goTo(nextAfter(row.at(-1)));
}

/** What one person takes: all fields of a page, or an image. */
function shareOf(card) {
  const sheet = homes.get(card).closest(".sheet");
  return part(":scope > h3", sheet) ? sheet : card;
}

/** Whether another person is at this card, or at one of its page. */
function isTheirs(card) {
  return (theirs ?? []).some((id) => shareOf(cardOf.get(id)) === shareOf(card));
}

/** A number as results have it: 7½ for `7 1/2`, as `tidy` in protocol/asked/values.py. */
function tidy(text) {
  const signs = { "1/2": "½", "1/4": "¼", "3/4": "¾" };
  const spelled = text.trim().replace(/(\d) ([½¼¾])/, "$1$2");
  return spelled.replace(/(\d) (1\/2|[13]\/4)$/, (_, digit, fraction) => digit + signs[fraction]);
}

/** A cell as RFC 4180 has it. A spreadsheet takes one that begins with = + - @ for a formula, so it
 * gets an apostrophe unless it is a number, as in `protocol/formats/csv_text.py`. */
function cell(text) {
  const isNumber = /^[+-]\d[\d½¼¾]*([.,/: ][\d½¼¾]+)*$/.test(text);
  const plain = !isNumber && /^[=+\-@\t\r\n']/.test(text) ? `'${text}` : text;
  return /[^\w./#½¼¾ -]/.test(plain) ? `"${plain.replaceAll('"', '""')}"` : plain;
}

function save() {
  if (savedIn) return;
  if (!given.size) return say("There is nothing to save yet");
  const drawn = new Map(all.map((card) => [ids.get(card), card.dataset.drawn]));
  const hasSample = all.some((card) => card.dataset.drawn);
  const place = (id) => (hasSample ? `,${drawn.get(id) ?? ""}` : "");
  const rows = [...given].map(([id, answer]) => `${cell(id)},${cell(answer)}${place(id)}\r\n`);
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([`id,${column}${hasSample ? ",sample" : ""}\r\n`, ...rows], { type: "text/csv" }));
  link.download = "corrections.csv";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
  say(`${given.size} ${given.size === 1 ? "answer" : "answers"} saved to corrections.csv`);
}

// If a server saves the answers:

/** What is shown: what the server has saved, and over it what it has not saved yet. */
function merge() {
  given = new Map(saved);
  for (const [id, { answer, isContested }] of unsaved)
    if (isContested) continue;
    else if (answer === null) given.delete(id);
    else given.set(id, answer);
}

/** Let a server save an answer, or take it back (null). A number that is typed waits for its end. */
function ask(id, answer, isTyped) {
  const before = unsaved.get(id);
  const isNew = !before || before.isContested;
  const known = isNew ? [saved.get(id) ?? null] : [...before.known, ...(before.isSent ? [before.answer] : [])];
  unsaved.set(id, { answer, known });
  merge();
  sendIn(isTyped ? 400 : 0);
}

function sendIn(ms) {
  clearTimeout(sendIn.timer);
  sendIn.timer = setTimeout(send, ms);
}

/** Without a message for some seconds, there is no connection. */
function waitForMessage() {
  clearTimeout(waitForMessage.timer);
  waitForMessage.timer = setTimeout(disconnect, WAIT_MS);
}

/** Send what is not saved yet, after the reply to what was sent before: a reply that is late would
 * be taken for one to a later answer. A page that is closed waits for none. */
function send(closing) {
  const asked = listUnsaved();
  if (!isConnected || !asked.length || (isSending && !closing)) return;
  isSending = true;
  socket.send(JSON.stringify(asked.map(([id, { answer, known }]) => [id, answer, known])));
  for (const [, one] of asked) one.isSent = true;
  keep();
  waitForMessage();
}

/** What the server says: answers that are saved, rules, why nothing is saved, or that this was all
 * to what this page has sent, or that there is another page now. Its first message has all answers. */
function take({ answers = [], rules = {}, trouble = "", others, isReply, version, refused, done }) {
  clearTimeout(waitForMessage.timer);
  if (refused) return void ((part("#who .warning").textContent = refused), (socket = socket.onclose = undefined));
  if (done) answers = fillIn(done);
  if (version) return void (take.version === undefined ? (take.version = version) : version === take.version || loadOther());
  answers = answers.filter(([id]) => cardOf.has(id)); // there may be another page
  if (others) return meet(others);
  if (isReply) return void ((isSending = false), part("#trouble").textContent || sendIn(0));
  part("#trouble").textContent = trouble && `Nothing is saved: ${trouble}`;
  if (trouble) sendIn(1000);
  else if (!isConnected) sendIn(0);
  isConnected = true;
  const [before, ours] = [new Map(saved), new Set(unsaved.keys())];
  for (const [id, answer] of answers) {
    if (answer === null) saved.delete(id);
    else saved.set(id, answer);
    const one = unsaved.get(id);
    if (one?.answer === answer) unsaved.delete(id);
    else if (one && !one.known.includes(answer)) one.isContested = true;
  }
  merge();
  keep();
  for (const [id] of answers) show(cardOf.get(id), !ours.has(id) && before.get(id) !== saved.get(id)); // a field with the focus, too
  for (const [id, each] of Object.entries(rules)) if (cardOf.has(id)) showRules(cardOf.get(id), each);
  showProgress();
}

/** The answers to which a server says only that a person who reads blind has given one, or taken it back. What has changed
 * since it was sent, or was sent to a server that has ended, has no reply yet. */
function fillIn(done) {
  if (part("#who").open) part("#who").close(), load(), chooseGroup(part("[data-group]"), false);
  const hasReply = (id) => !unsaved.has(id) || (isConnected && unsaved.get(id).isSent);
  const answerOf = (id) => (unsaved.has(id) ? unsaved.get(id).answer : saved.get(id));
  return done.filter(([id]) => hasReply(id)).map(([id, isGiven]) => [id, isGiven ? answerOf(id) : null]);
}

/** Tell the server at which card this person is. */
function tellPlace() {
  if (isConnected) socket.send(JSON.stringify(ids.get(current) ?? ""));
}

/** Where the other people are. Who comes later begins at another page or image. */
function meet(others) {
  const isFirst = !theirs;
  theirs = others.filter((id) => cardOf.has(id));
  for (const card of all) card.classList.toggle("theirs", theirs.includes(ids.get(card)));
  if (isFirst && current && isTheirs(current)) select(nextAfter(current), false);
  else if (isFirst) tellPlace();
}

// The corners of the form on a refused page, clockwise from its top left one, as shares of the picture's sides
const START = [[0.05, 0.05], [0.95, 0.05], [0.95, 0.95], [0.05, 0.95]];
let corners = START;

/** Show the whole page of a card beside the cards, if that is wanted. Corners of a refused one may be dragged. */
async function showPage(card = current) {
  const beside = part("#whole");
  const sheet = card && homes.get(card).closest(".sheet");
  if (!beside || beside.hidden || !sheet || beside.sheet === sheet) return;
  Object.assign(beside, { sheet, card });
  part("strong", beside).textContent = "";
  part("img", beside).src = "";
  part("#again").disabled = true;
  drawCorners(START);
  beside.classList.toggle("refused", Boolean(part(".refused", sheet)));
  const uri = await fetch(pageOf(card)).then((answer) => answer.text(), () => "");
  if (beside.sheet !== sheet) return; // another page is asked for
  if (!uri.startsWith("data:")) return void (beside.sheet = undefined);
  part("img", beside).src = uri;
  part("#again").disabled = false;
}

const pageOf = (card) => `page${location.search}&id=${encodeURIComponent(ids.get(card))}`;

/** Show the whole page, or hide it. */
function changePage(isShown, card = current) {
  part("#page").setAttribute("aria-pressed", isShown);
  part("#whole").hidden = !isShown;
  showPage(card);
}

/** Draw the outline of the form, its upper side, and its corners. */
function drawCorners(moved) {
  corners = moved;
  const outline = element("polygon", { points: corners.join(" ") });
  const top = element("polyline", { points: corners.slice(0, 2).join(" ") });
  const handles = corners.map((corner) => element("polyline", { class: "corner", points: [corner, corner].join(" ") }));
  part("#whole svg").replaceChildren(outline, top, ...handles);
}

/** Drag the nearest corner. */
function dragCorner(event) {
  const svg = event.currentTarget;
  const { left, top, width, height } = svg.getBoundingClientRect();
  const place = ({ clientX, clientY }) => [(clientX - left) / width, (clientY - top) / height].map((share) => Math.min(Math.max(share, 0), 1));
  const [x, y] = place(event);
  const distances = corners.map(([toX, toY]) => Math.hypot((toX - x) * width, (toY - y) * height));
  const nearest = distances.indexOf(Math.min(...distances));
  event.preventDefault();
  svg.setPointerCapture(event.pointerId);
  svg.onpointermove = (move) => drawCorners(corners.with(nearest, place(move)));
  svg.onpointerup = svg.onpointercancel = () => (svg.onpointermove = null);
}

/** Let the server read the page again where the corners are; then there is another page of results, or a problem is told. */
async function readAgain(button) {
  const { card } = part("#whole");
  const told = part("#whole strong");
  told.textContent = "Reading …";
  button.disabled = true;
  const how = { method: "POST", body: JSON.stringify(corners) };
  const { problem } = await fetch(pageOf(card), how).then((answer) => answer.json()).catch(() => ({ problem: "digitq does not answer" }));
  if (!problem) return location.reload();
  if (part("#whole").card !== card) return say(problem);
  told.textContent = problem;
  button.disabled = false;
}

/** Show another page of results, unless a person would lose what they do. */
function loadOther() {
  const isTyping = part(".card input:focus:not(:placeholder-shown)");
  const isPlacing = corners !== START && part("#whole.refused:not([hidden])");
  if (isTyping || isPlacing) say("A page was read again: reload this one to see it");
  else location.reload();
}

/** Another person's answer beside ours. */
function showContest(card) {
  const id = ids.get(card);
  const ours = unsaved.get(id);
  part(".contest", card).hidden = !ours?.isContested;
  if (!ours?.isContested) return;
  const [their, our] = [saved.get(id) ?? null, ours.answer].map((one) => (one === null ? "nothing" : one || nothing));
  part(".contest span", card).textContent = `another person answered ${their}; yours: ${our}`;
}

/** The answers that are on their way. This page may lack images of an earlier one. */
function listUnsaved() {
  return [...unsaved].filter(([id, one]) => cardOf.has(id) && !one.isContested);
}

function showSaved() {
  const contested = [...unsaved.values()].filter((one) => one.isContested).length;
  const waiting = unsaved.size - contested;
  const left = [contested && `${contested} to settle`, waiting && `${waiting} not saved yet`];
  const state = isConnected ? "saved" : "not connected";
  part("#save").textContent = left.filter(Boolean).join(", ") || state;
  part("#save").disabled = !contested;
}

function connect() {
  const made = new WebSocket(`${location.protocol.replace("http", "ws")}//${location.host}/answers${location.search}${initials ? `&initials=${encodeURIComponent(initials)}` : ""}`);
  made.onmessage = ({ data }) => take(JSON.parse(data));
  made.onclose = disconnect;
  waitForMessage();
  socket = made;
}

/** Say why there is no connection, and try again, unless the link is an old one. */
async function disconnect() {
  if (!socket) return; // it is known
  socket.onclose = null;
  socket.close();
  socket = undefined;
  isConnected = isSending = false;
  theirs = undefined;
  showSaved();
  const answer = await fetch(location.href, { method: "HEAD", signal: AbortSignal.timeout?.(WAIT_MS) }).catch(() => undefined);
  const isOld = answer?.status === 403;
  const remedy = isOld ? "digitq was started anew: open its new link" : "There is no connection to digitq";
  part("#trouble").textContent = `${remedy}. Your answers are kept in this browser until they are saved.`;
  if (!isOld) setTimeout(connect, 1000);
}

document.addEventListener("keydown", (event) => {
  const { target } = event;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing || !current) return;
  if (target.id === "search") return key === "Enter" ? select(current) : undefined;
  const field = target instanceof HTMLInputElement ? target : undefined;
  const isOther = target.closest("button, a") !== null;
  if (isOther && (key === "Enter" || key === " ")) return;
  const option = key.length === 1 ? findOption(current, key) : undefined;
  if (option) chooseByKey(option);
  else if (key.length === 1 && key !== " " && typed.test(key)) {
    if (field) return;
    if (read === "number") return part("input", current) ? enter(current) : undefined; // the field takes the key
    giveByKey(key);
  } else if (key === "Enter") event.repeat || confirm(); // a key that is held confirms one
  else if (key === "ArrowDown" || (key === "ArrowRight" && !field?.value)) goTo(cards[cards.indexOf(current) + 1]);
  else if (key === "ArrowUp" || (key === "ArrowLeft" && !field?.value)) goTo(cards[cards.indexOf(current) - 1] ?? current);
  else if (key === "Tab" && !event.shiftKey && target === document.body) select(current); // the framed one
  else if (key === "x") refuseByKey("");
  else if (key === "w") confirmRules(rulesOf.get(current));
  else if (key === "i") refuseByKey(illegible);
  else if (key === "Escape") current.classList.remove("large");
  else if (key === "Backspace" || key === "Delete") {
    if (field?.value) return; // of what is being typed
    giveByKey(undefined);
  } else if (key === "s") save();
  else return;
  event.preventDefault();
});

document.addEventListener("input", ({ target }) => {
  if (target.id === "search") return search(target.value.trim());
  const card = target.closest(".card");
  if (!card) return;
  const text = [...target.value].filter((sign) => typed.test(sign)).join("");
  const number = tidy(text);
  const digits = number.replace(/[^0-9½¼¾]/g, "").length;
  const isNumber = digits > 0 && digits <= 20 && !number.includes(" ");
  if (isNumber || given.has(ids.get(card))) give(card, isNumber ? number : undefined, true);
  target.value = text; // it may become a number
});

document.addEventListener("toggle", () => current && isFolded(current) && select(), true);

document.addEventListener("focusin", ({ target }) => {
  const card = target.closest(".card");
  if (card && card !== current) select(card, false);
});

document.addEventListener("click", ({ target, detail, pointerType }) => {
  const button = target.closest("button");
  const card = target.closest(".card");
  const isSecond = detail > 1 && pointerType === "mouse"; // the first click may have brought another card here
  if (card && button && !button.dataset.option && isSecond) return;
  if (card) {
    select(card, false);
    const isGiven = button?.getAttribute("aria-pressed") === "true"; // then it is taken back
    if (button?.matches("[data-wrong]")) return confirmRules(rulesOf.get(card));
    const { settle } = button?.dataset ?? {};
    if (settle) give(card, settle === "ours" ? unsaved.get(ids.get(card)).answer ?? undefined : saved.get(ids.get(card)));
    else if (button?.dataset.option) give(card, chooseOption(card, button.dataset));
    else if (button) give(card, isGiven ? undefined : button.dataset.give);
    else if (target.closest(".frame, .answers .card, .large") && !target.matches("input")) card.classList.toggle("large");
    if (button && !isGiven && !button.dataset.option && !card.closest(".answers")) goTo(nextAfter(card));
    else if (!target.matches("input")) card.focus({ preventScroll: true });
  } else if (target.closest(".whole")) {
    select(cards.find((one) => target.closest(".line").contains(one)), false);
    confirm();
  } else if (button?.dataset.group) chooseGroup(button);
  else if (button?.dataset.truth) chooseCell(button);
  else if (button?.id === "save" && savedIn) choose(undefined, (one) => unsaved.get(ids.get(one))?.isContested, "Two answers", "cell");
  else if (button?.id === "save") save();
  else if (button?.id === "signs") changeKeys(button);
  else if (button?.id === "page") changePage(button.getAttribute("aria-pressed") !== "true");
  else if (button?.id === "turn") drawCorners([corners[3], ...corners.slice(0, 3)]), (part("#whole strong").textContent = "");
  else if (button?.id === "again") readAgain(button);
  else if (button?.matches("[data-find]")) changePage(true, all.find((one) => button.closest(".sheet").contains(homes.get(one))));
  else if (target.matches("#whole:not(.refused) img")) target.classList.toggle("large");
});

part("#whole svg")?.addEventListener("pointerdown", dragCorner);

addEventListener("storage", ({ key }) => {
  if (key !== storageKey) return; // another tab has the same page
  load();
});

for (const card of all) showRules(card, JSON.parse(card.dataset.rules ?? "[]"));
part("#who")?.addEventListener("cancel", (event) => event.preventDefault());
part("#who")?.addEventListener("submit", (event) => {
  event.preventDefault();
  initials = part("#who input").value;
  storageKey = `digitq ${results} ${initials}`;
  if (!socket) connect();
});
if (all.length && !part("#who")) {
  load();
  chooseGroup(part("[data-group]"), false);
}
if (all.length && savedIn) {
  addEventListener("offline", disconnect);
  addEventListener("pagehide", send);
  if (part("#who")) part("#who").showModal();
  else connect();
}

// The editor of a form. `parts` are those of its file, with changes that may not be saved yet
const form = { others: [], parts: [], places: [], items: new Map(), size: [1, 1], changes: 0, sending: Promise.resolve() };
// What a box is for: the kind of its part, and what it says at first
const USES = {
  fields: ["fields", {}],
  mark: ["fields", { kind: "mark" }],
  tables: ["tables", { rows: 1, columns: ["c1"] }],
  choices: ["choices", { options: ["A", "B", "C", "D"] }],
};
const useOf = ({ kind, keys }) => (kind === "fields" && keys.kind === "mark" ? "mark" : kind);
const columnsOf = ({ kind, keys }) => (kind === "tables" ? keys.columns.map((column) => column.name ?? column) : []);
const hasTicks = ({ keys }, column) => (column.kind ?? keys.kind) === "mark";
const boxesOf = ({ keys }) => keys.boxes ?? (keys.box ? [keys.box] : []);
const hasBlocks = ({ kind, keys }) => kind === "choices" && Boolean(keys.rows || keys.columns); // of questions
/** The boxes whose corners may be dragged: each bubble that has its own keeps its size. */
const sizable = (one) => (one.keys.box || hasBlocks(one) ? boxesOf(one) : []);
const cornersOf = ([left, top, right, bottom]) => [[left, top], [right, top], [right, bottom], [left, bottom]];

async function askServer(path, body) {
  try {
    const how = body && { method: "POST", body, keepalive: body.length < 60_000 }; // it may outlive the page
    return await (await fetch(`${path}${location.search}`, how)).json();
  } catch {
    return { problem: "digitq form edit does not answer: is it still running in the terminal?" };
  }
}

/** Show what the file says; what a person has changed since this was asked for counts. */
function showForm(answer, changes = form.changes) {
  if (form.changes > changes) return void (form.version = answer.version ?? form.version);
  const inAnswer = (one) => answer.parts[form.parts.indexOf(one)];
  if (answer.parts) Object.assign(form, answer, { isUnsaved: false, selected: inAnswer(form.selected), others: form.others.map(inAnswer).filter(Boolean) });
  listParts();
  tell(answer);
}

/** Show what another program, or another window, has changed. */
function refresh() {
  form.sending = form.sending.then(async () => {
    const { changes } = form;
    const answer = form.isUnsaved ? {} : await askServer("form");
    if (answer.parts && answer.version !== form.version && form.changes === changes) showForm(answer);
  });
}

/** Say what is wrong, beside its part, too. */
function tell({ problem = "", undo = form.undo, others, places = form.places }) {
  Object.assign(form, { undo, places });
  part("#undo").disabled = !undo && !form.isUnsaved;
  for (const [{ kind, name }, item] of form.items) {
    const key = `${kind}.${name}`;
    const isOf = problem.startsWith(`${key}.`) || problem.startsWith(`${key}:`);
    part(".problem", item).textContent = isOf ? problem.slice(key.length + 1) : "";
  }
  part("#said").title = problem; // which may be cut off
  const wrong = form.isUnsaved ? `Not saved yet: ${problem}` : problem;
  const saved = others ? "All is saved. Another program had changed the file: Undo brings back its text" : "All is saved";
  say(!form.parts.length ? "Drag over the blank, around the first box" : problem && !others ? wrong : form.isUnsaved ? "Saving …" : saved);
  drawBoxes();
}

/** Save the form, one change after the other. */
function saveForm() {
  form.isUnsaved = true;
  form.changes += 1;
  form.sending = form.sending.then(sendForm);
}

async function sendForm() {
  if (!form.isUnsaved) return; // the last answer was to this change, too
  const { changes } = form;
  const parts = [...form.parts];
  parts.filter(({ kind }) => kind === "checks").forEach((rule, at) => (rule.name = `${at + 1}`));
  const names = parts.map((one) => one.name);
  const answer = await askServer("form", JSON.stringify({ version: form.version, parts }));
  if (answer.parts) {
    form.version = answer.version;
    form.isUnsaved = form.changes > changes;
    for (const [at, one] of parts.entries()) one.was = names[at];
  }
  tell(answer);
}

/** Take back what could not be saved, or else the last change. */
function undo() {
  form.sending = form.sending.then(async () => {
    const { changes, version } = form;
    const change = form.isUnsaved ? undefined : JSON.stringify({ version, parts: null });
    if (form.isUnsaved || form.undo) showForm(await askServer("form", change), changes);
  });
}

/** The names of the columns of a table, or the options of a question. */
const headsOf = (one) => (one.kind === "choices" ? one.keys.options : columnsOf(one));

function element(name, attributes, text = "") {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.textContent = text;
  return made;
}

const rectangle = (name, [left, top, right, bottom]) => element("rect", { class: name, x: left, y: top, width: right - left, height: bottom - top });

/** Draw all boxes, with the names of fields and columns, in px of the blank. */
function drawBoxes() {
  const svg = part("#blank svg");
  form.px = form.size[0] / (svg.clientWidth || 1); // of the blank in one of the screen
  svg.setAttribute("viewBox", `0 0 ${form.size.join(" ")}`);
  const area = (one) => around(boxesOf(one)).reduce((sum, side, at, all) => (at < 2 ? sum * (all[at + 2] - side) : sum), 1);
  const drawn = form.parts.filter((one) => boxesOf(one).length).sort((one, other) => area(other) - area(one));
  form.groups = new Map(drawn.map((one) => [drawPart(one), one])); // the smallest is in front
  svg.replaceChildren(...form.groups.keys());
}

function drawPart(one) {
  const { px } = form;
  const group = element("g", { class: `${useOf(one)}${isSelected(one) ? " selected" : ""}` });
  const write = (text, x, y) => group.append(element("text", { x, y, "font-size": 14 * px, "stroke-width": 4 * px }, text));
  const heads = headsOf(one);
  group.append(...boxesOf(one).map((box) => rectangle("box", box)));
  const blocks = sizable(one).length ? sizable(one) : [around(boxesOf(one))];
  const places = blocks.flatMap((block) => form.places.find(([box]) => `${box}` === `${block}`)?.[1] ?? []);
  for (const [at, place] of places.entries()) {
    const head = heads[at % heads.length];
    group.append(rectangle(head && "cell", place));
    if (head && at < heads.length) write(head, place[0] + 4 * px, (place[1] + place[3]) / 2 + 5 * px);
  }
  write(one.name, boxesOf(one)[0][0], Math.max(boxesOf(one)[0][1] - 5 * px, 14 * px));
  if (one === form.selected)
    for (const [x, y] of sizable(one).flatMap(cornersOf)) group.append(rectangle("handle", [x - 5 * px, y - 5 * px, x + 5 * px, y + 5 * px]));
  return group;
}

/** List all parts, with what they say. */
function listParts() {
  form.items = new Map(form.parts.map((one) => [one, part(one.kind === "checks" ? "#check" : "#part").content.firstElementChild.cloneNode(true)]));
  for (const list of document.querySelectorAll("#parts, #rules")) list.replaceChildren();
  for (const [one, item] of form.items) part(one.kind === "checks" ? "#rules" : "#parts").append(item), fillItem(one);
  selectPart(form.selected, form.others);
}

function fillItem(one) {
  const item = form.items.get(one);
  item.dataset.use = useOf(one);
  for (const field of item.querySelectorAll("[data-key]")) {
    const value = one.keys[field.dataset.key];
    if (field.type === "checkbox") field.checked = value ?? false;
    else if (field.dataset.key === "optional") field.value = `${value ?? (one.kind === "choices" ? "" : one.kind === "tables")}`;
    else field.value = Array.isArray(value) ? value.join(", ") : (value ?? "");
    if (field.dataset.key === "box") field.disabled = !value; // each bubble has a box of its own
  }
  if (one.kind === "checks") return;
  part("[data-name]", item).value = one.name;
  part("[data-for]", item).value = useOf(one);
  const columns = columnsOf(one).map((name, at) => {
    const [text, tick] = part("#column").content.cloneNode(true).children;
    Object.assign(text, { value: name, ariaLabel: `column ${at + 1}` });
    part("input", tick).checked = hasTicks(one, one.keys.columns[at]);
    for (const [row, cell] of [text, tick].entries()) cell.style.gridArea = `${row + 1} / ${at + 1}`;
    return [text, tick];
  });
  // `Tab` leads from name to name
  part(".columns", item).replaceChildren(...columns.map(([text]) => text), ...columns.map(([, tick]) => tick));
}

/** Whether a part is selected, alone or with others. */
const isSelected = (one) => one === form.selected || form.others.includes(one);

/** Select a part, and with it those that `Delete` removes, too. */
function selectPart(one, others = []) {
  Object.assign(form, { selected: one, others });
  for (const [other, item] of form.items) item.classList.toggle("selected", isSelected(other));
  form.items.get(one)?.scrollIntoView({ block: "nearest" });
  drawBoxes();
}

/** The name, or the next one that is free: q2 after q1. */
function freeName(name) {
  const [, stem, number] = /^(.*?)(\d*)$/.exec(name);
  const taken = new Set(form.parts.flatMap((one) => [one.name, ...columnsOf(one)]));
  let next = Number(number || 1);
  while (taken.has(name)) name = `${stem}${(next += 1)}`;
  return name;
}

/** Add a part after another one, and select it. */
function addPart(kind, name, keys, after = form.parts.findLast((one) => one.kind !== "checks")) {
  Object.assign(form, { selected: { kind, name: freeName(name), was: null, keys }, others: [] });
  form.parts.splice(kind === "checks" ? form.parts.length : form.parts.indexOf(after) + 1, 0, form.selected);
}

/**
 * Add boxes alike, each as far from the last one as the nearest alike is, or else adjoining. A block of questions becomes
 * several, whose questions are counted on.
 */
function repeat(one, way) {
  const box = boxesOf(one).at(hasBlocks(one) ? -1 : 0);
  const isAlike = (other) => other.every((side, at) => at % 2 === way || Math.abs(side - box[at]) < 6);
  const steps = form.parts.flatMap(boxesOf).filter(isAlike).map((other) => Math.abs(other[way] - box[way]));
  const step = Math.min(...steps.filter(Boolean), ...(steps.some(Boolean) ? [] : [box[way + 2] - box[way]]));
  const count = Math.min(Number(prompt("How many more?", 1)) || 0, 200);
  const moved = (box, by) => box.map((side, at) => (at % 2 === way ? side + by : side));
  for (let at = 1; at <= count; at++) {
    if (hasBlocks(one)) {
      one.keys.boxes = [...boxesOf(one), moved(box, at * step)];
      delete one.keys.box;
      continue;
    }
    const keys = structuredClone(one.keys);
    if (keys.boxes) keys.boxes = keys.boxes.map((bubble) => moved(bubble, at * step));
    else keys.box = moved(box, at * step);
    addPart(one.kind, form.selected.name, keys, form.selected);
  }
}

/** A rule in which a person may have typed one equals sign for two. */
const equate = (rule) => rule.trim().replace(/(?<![=!<>])=(?!=)/g, "==");

/** What a person has listed. A comma or a semicolon keeps the spaces within a name. */
function listed(text, separator) {
  return text.split(/[,;]/.test(text) ? /[,;]/ : separator).map((one) => one.trim()).filter(Boolean);
}

/** The options that a person has listed, where `0-9` and `A-E` are all from the first to the last. */
function listOptions(text) {
  return listed(text, /[\s,;]+/).flatMap((one) => {
    const [, first, last] = /^([0-9A-Za-z])\s*[-–]\s*([0-9A-Za-z])$/.exec(one) ?? [];
    const isRange = first < last && [/\d\d/, /[A-Z]{2}/, /[a-z]{2}/].some((kind) => kind.test(first + last));
    const codes = isRange ? [first, last].map((sign) => sign.charCodeAt(0)) : [];
    return isRange ? Array.from({ length: codes[1] - codes[0] + 1 }, (_, at) => String.fromCharCode(codes[0] + at)) : [one];
  });
}

/** Take what a person has typed, chosen or ticked. */
function changePart(one, item, field) {
  const { key } = field.dataset;
  const text = (field.value = field.value.trim());
  if (field.matches("[data-name]")) {
    if (!text) return void (field.value = one.name);
    one.name = text;
  } else if (field.matches("[data-for]")) {
    if (!boxesOf(one).length) return fillItem(one); // a table without a box stays one
    one.kind = USES[text][0];
    one.keys = { box: one.keys.box ?? around(one.keys.boxes), ...structuredClone(USES[text][1]) };
    fillItem(one);
  } else if (field.matches(".columns input")) {
    const cells = [...field.closest(".columns").children];
    const at = cells.findIndex((cell) => cell.contains(field)) % one.keys.columns.length;
    const [column, name] = [one.keys.columns[at], columnsOf(one)[at]];
    if (field.type !== "checkbox") one.keys.columns[at] = column.name === undefined ? text : { ...column, name: text };
    else one.keys.columns[at] = hasTicks(one, name) === field.checked ? name : { name, kind: field.checked ? "mark" : "number" };
  } else if (field.type === "checkbox") one.keys[key] = field.checked;
  else if (key === "optional") one.keys.optional = text === "true";
  else if (key === "options") (one.keys.options = listOptions(text)), fillItem(one);
  else if (key === "show" && text) one.keys.show = listed(text, /[,;]/);
  else if (key === "box") {
    const sides = text.split(",").map(Number);
    if (sides.length === 4 && sides.every(Number.isFinite)) one.keys.box = around([sides]);
    fillItem(one);
  } else if (key === "rule") {
    if (!text) return doWith("remove", one);
    one.keys.rule = field.value = equate(text);
  } else if (!text) delete one.keys[key];
  else one.keys[key] = /^(0|[1-9]\d*|\d+\.\d+)$/.test(text) && key !== "pattern" ? Number(text) : text;
  selectPart(form.selected);
  saveForm();
}

/** Change the parts as a button says, and save them. */
function doWith(what, one) {
  const columns = one?.keys.columns;
  if (what === "widen") columns.push(freeName(columnsOf(one).findLast(Boolean) ?? "c1"));
  if (what === "narrow" && columns.length > 1) columns.pop();
  if (what === "below" || what === "beside") repeat(one, what === "below" ? 1 : 0);
  if (what === "box") {
    const { clientWidth, clientHeight, scrollTop } = part("#blank");
    const [x, y] = [clientWidth / 2, Math.min(scrollTop + clientHeight / 2, part("#blank svg").clientHeight - 20)];
    addPart("fields", "field1", { box: around([[x - 50, y - 20, x + 50, y + 20].map((side) => side * form.px)]) });
  }
  if (what === "all") return selectPart(undefined, form.parts.filter((other) => other.kind !== "checks"));
  if (what === "remove") {
    form.parts = form.parts.filter((other) => other !== one && !(form.others.includes(other) && (!one || isSelected(one))));
    Object.assign(form, { selected: undefined, others: [] });
  }
  if (what === "widen" || what === "narrow") fillItem(one);
  else listParts();
  if (what === "box") part("input", form.items.get(form.selected)).select();
  saveForm();
}

/** Draw a box, or move or resize the one that the pointer is on. */
function startPointer(event) {
  const svg = part("#blank svg");
  const isMouse = event.pointerType === "mouse";
  const { left, top } = svg.getBoundingClientRect();
  const place = ({ clientX, clientY }) => [(clientX - left) * form.px, (clientY - top) * form.px];
  const [x, y] = place(event);
  const isNear = ([toX, toY]) => Math.hypot(toX - x, toY - y) < (isMouse ? 9 : 20) * form.px;
  let corner = form.selected ? sizable(form.selected).flatMap(cornersOf).findIndex(isNear) : -1;
  let hit = corner < 0 ? form.groups.get(event.target.closest("g")) : form.selected;
  const earlier = form.parts.filter(isSelected);
  if (event.shiftKey && hit) return event.preventDefault(), selectPart(hit, earlier), svg.focus({ preventScroll: true });
  selectPart(hit);
  svg.focus({ preventScroll: true });
  if (!isMouse && !hit) return; // a finger scrolls
  event.preventDefault();
  svg.setPointerCapture(event.pointerId);
  let before = structuredClone(hit?.keys);
  let isMoved = false;
  svg.onpointermove = (move) => {
    const [toX, toY] = place(move);
    isMoved ||= Math.hypot(toX - x, toY - y) > 4 * form.px;
    if (!isMoved) return;
    form.changes += 1; // an answer to what was before takes nothing back
    if (!hit) {
      addPart("fields", "field1", { box: around([[x, y, x, y]]) });
      [hit, before, corner] = [form.selected, structuredClone(form.selected.keys), 2];
    }
    if (corner < 0) movePart(hit, before, toX - x, toY - y);
    else {
      const block = corner >> 2;
      const stays = cornersOf(boxesOf({ keys: before })[block])[(corner + 2) % 4];
      const box = around([[...stays, toX, toY]]);
      if (before.box) hit.keys.box = box;
      else hit.keys.boxes[block] = box;
    }
    drawBoxes();
  };
  svg.onpointerup = svg.onpointercancel = ({ type }) => {
    svg.onpointermove = svg.onpointerup = svg.onpointercancel = null;
    if (!isMoved) return;
    if (type === "pointercancel") hit.keys = before;
    const [left, top, right, bottom] = around(boxesOf(hit));
    doWith(Math.min(right - left, bottom - top) < 8 && corner >= 0 && "remove", hit);
  };
}

/** The box around these, in whole px of the blank. */
function around(boxes) {
  const all = [0, 1].map((way) => boxes.flatMap((box) => [box[way], box[way + 2]]).map((side) => Math.round(Math.min(Math.max(side, 0), form.size[way]))));
  return [...all.map((sides) => Math.min(...sides)), ...all.map((sides) => Math.max(...sides))];
}

/** Move a part by so many px from where these keys have it, as far as the blank reaches. */
function movePart(one, keys, ...by) {
  const all = around(boxesOf({ keys }));
  const steps = by.map((way, at) => Math.min(Math.max(Math.round(way), -all[at]), form.size[at] - all[at + 2]));
  const moved = boxesOf({ keys }).map((box) => box.map((side, at) => side + steps[at % 2]));
  Object.assign(one.keys, keys.boxes ? { boxes: moved } : { box: moved[0] });
}

/** Show where the boxes are on a photo of a filled page. */
async function tryOn(photo) {
  if (photo.size > form.max_bytes) return say(`${photo.name} is larger than ${form.max_bytes >> 20} MiB`);
  const said = part("#said").textContent;
  say(`Looking for the form on ${photo.name} …`);
  await form.sending;
  const { text, picture, problem } = await askServer("photo", photo);
  part("#seen p").textContent = (form.isUnsaved ? "Your last change is not saved, and not shown. " : "") + (text ?? problem);
  part("#seen img").hidden = !picture;
  part("#seen img").src = `data:image/png;base64,${picture ?? ""}`;
  part("#seen").showModal();
  say(said);
}

function pressKey(event) {
  const { key, target, shiftKey, ctrlKey, metaKey, altKey } = event;
  const isTyping = target.matches("input, select");
  const { selected } = form;
  const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[key];
  if (altKey || part("dialog[open]")) return;
  if (ctrlKey || metaKey) {
    if (key !== "z" || isTyping) return;
    undo();
  } else if (key === "Escape") target.blur(), selectPart();
  else if (isTyping && key === "Enter") target.blur();
  else if (isTyping || !(selected || form.others.length)) return;
  else if (key === "Delete") doWith("remove", selected);
  else if (!selected) return;
  else if (step && boxesOf(selected).length) movePart(selected, selected.keys, ...step.map((way) => way * (shiftKey ? 10 : 1))), fillItem(selected), drawBoxes(), saveForm();
  else if (key.length === 1 && key !== " " && target.matches("svg")) return part("input", form.items.get(selected)).select(); // it takes the key
  else return;
  event.preventDefault();
}

function editForm() {
  const itemOf = (target) => [...form.items].find(([, item]) => item.contains(target)) ?? [];
  addEventListener("resize", drawBoxes);
  part("#blank svg").addEventListener("pointerdown", startPointer);
  document.addEventListener("keydown", pressKey);
  document.addEventListener("change", ({ target }) => {
    const [one, item] = itemOf(target);
    if (one) changePart(one, item, target);
    else if (target.id === "photo" && target.files.length) tryOn(target.files[0]), (target.value = "");
    else if (target.id === "rule" && target.value.trim()) {
      addPart("checks", "", { rule: equate(target.value) });
      target.value = "";
      doWith();
    }
  });
  document.addEventListener("focusin", ({ target }) => {
    const [one] = itemOf(target);
    if (one && one !== form.selected) selectPart(one);
  });
  document.addEventListener("click", ({ target }) => {
    const button = target.closest("button");
    button?.closest("dialog")?.close();
    if (button?.dataset.do) doWith(button.dataset.do, itemOf(button)[0]);
    else if (button?.id === "undo") undo();
  });
  addEventListener("focus", refresh);
  addEventListener("beforeunload", (event) => {
    document.activeElement.blur(); // what is typed counts
    if (form.isUnsaved) event.preventDefault();
  });
  askServer("form").then(showForm);
}

if (document.body.dataset.use === "form") editForm();
