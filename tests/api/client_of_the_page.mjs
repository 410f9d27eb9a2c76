// Asks a server by the client that the page is built on and prints what came of it: `node ... CLIENT URL PROXIED_URL`.
const [, , path, url, proxied] = process.argv;
const { Client, Refused } = await import(path);
const told = {};

async function all(events) {
	const heard = [];
	for await (const numbered of events) heard.push(numbered);
	return heard;
}

const client = new Client(url);
told.whole = await all(client.ask("What is aripiprazole?"));
let broken = 0;
const brokeOff = () => broken++;
told.interrupted = await all(new Client(proxied).ask("llm:slow", {}, { brokeOff }));
told.broken = broken;
told.again = await all(client.watch(told.whole[0].event.content.run_id, 4));
const run = told.interrupted[0].event.content.run_id;
told.interruptedAgain = await all(new Client(`${proxied}/`).watch(run, 100));

for await (const { event } of client.ask("llm:slow left")) {
	if (event.type === "run_start") told.left = event.content.run_id;
	if (event.content === " w5") break;
}

const leave = new AbortController();
for await (const { event } of client.ask("llm:slow aborted", {}, { signal: leave.signal })) {
	if (event.type === "run_start") told.aborted = event.content.run_id;
	if (event.content === " w5") leave.abort();
}

await all(client.ask(" ")).catch((problem) => {
	told.refused = { ours: problem instanceof Refused, status: problem.status, message: problem.message };
});
console.log(JSON.stringify(told));
