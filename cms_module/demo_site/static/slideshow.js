const push = Push.connect({ server, since, token: "/push/token" });
push.subscribe("slides:tour", ({ page }) => deck.show(page));
push.on("reset", () => location.reload());
const presenting = new URLSearchParams(location.search).has("present");
if (presenting) deck.onturn = (page) => push.publish("slides:tour", { page }, { echo: false });
