/**
 * The chat room. The page comes with the conversation in it; what is said afterwards comes by
 * push. The author's own words are shown when the site has taken them, and come by push as well:
 * messages have numbers, and one that is there already is not shown again.
 */
"use strict";

(() => {
  const talk = document.getElementById("talk");
  const list = document.getElementById("messages");
  const form = document.getElementById("say");
  const field = document.getElementById("text");
  const problem = document.getElementById("say-result");
  /** Who is not further from the latest message reads it. */
  const NEAR = 80;

  function element(tag, name, text = "") {
    const made = document.createElement(tag);
    if (name) made.className = name;
    made.textContent = text;
    return made;
  }

  function add(message) {
    const lines = [...list.children];
    if (lines.some((line) => line.dataset.id === String(message.id))) return;
    const mine = message.user === site.user;
    const line = element("li", `message ${mine ? "mine" : "theirs"}`);
    line.dataset.id = message.id;
    const face = element("span", `avatar ${message.user}`, message.name[0]);
    face.setAttribute("aria-hidden", "true");
    const who = element("p", "who");
    const time = element("time", "", site.when(message.at));
    who.append(element("strong", "", message.name), " ", time);
    const said = element("div", "");
    said.append(who, element("p", "said", message.text));
    line.append(face, said);
    // Numbers grow with time: what arrives late still goes where it belongs.
    list.insertBefore(line, lines.find((other) => Number(other.dataset.id) > message.id) || null);
    // Counted from the end: who reads something older stays there, unless it is theirs.
    if (mine || talk.scrollTop > -NEAR) talk.scrollTop = 0;
  }

  async function catchUp() {
    try {
      const { messages } = await site.load("/chat.json");
      messages.forEach(add);
    } catch {
      // The site is away; what is here stays.
    }
  }

  for (const time of list.querySelectorAll("time")) time.textContent = site.when(time.dataset.at);

  site.push.subscribe("chat:lobby", add);
  site.push.on("subscribed", catchUp);
  site.push.on("reset", catchUp);
  // The site says everything once. What it could not say to a push server that was away is here.
  site.push.on("recovered", catchUp);

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const text = field.value;
    field.value = "";
    problem.hidden = true;
    try {
      add(await site.post("/chat/say", { text }));
    } catch (error) {
      field.value = field.value || text;
      problem.textContent = `That was not sent. ${error.message}`;
      problem.hidden = false;
    }
    field.focus();
  });
})();
