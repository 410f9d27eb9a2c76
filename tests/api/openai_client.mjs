// Asks a server by OpenAI's JavaScript package and prints what came of it: `node openai_client.mjs URL`.
import { createRequire } from "node:module";

const { OpenAI } = createRequire(new URL("../../ui/package.json", import.meta.url))("openai");
const client = new OpenAI({ baseURL: process.argv[2], apiKey: "none", maxRetries: 0 });
const told = {};

function asked(content, options) {
	const messages = [{ role: "user", content }];
	return client.chat.completions.create({ model: "stagecast", messages, ...options });
}

async function read(content) {
	const tokens = [];
	for await (const chunk of await asked(content, { stream: true })) {
		const token = chunk.choices[0].delta.content;
		if (token) tokens.push(token);
		if (token === " w5") break; // which aborts the request
	}
	return tokens;
}

told.streamed = await read("What is aripiprazole?");
told.whole = (await asked("What is aripiprazole?")).choices[0].message.content;
await asked("a", { model: "gpt-9" }).catch(({ status, code, param }) => {
	told.refused = { status, code, param };
});
await read("llm:truncated").catch(({ code }) => {
	told.broken = code;
});
await read("llm:slow");
told.left_at = Number(process.hrtime.bigint()) / 1e9; // the clock of Python's time.monotonic
await new Promise((resolve) => setTimeout(resolve, 200));
console.log(JSON.stringify(told));
