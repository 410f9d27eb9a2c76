// Writes the types of events and answers, made from the OpenAPI description on standard input, to standard output.
import { compile } from "json-schema-to-typescript";

const HEAD = "// Made by `just types` from the server's own description; not to be changed by hand.\n";
const USED = [
	"Event",
	"ChatRequest",
	"Answer",
	"SessionPage",
	"SessionRow",
	"MessagePage",
	"DocumentPage",
	"WholeDocument",
	"SearchResult",
	"Job",
];

const described = JSON.parse(await text(process.stdin));
const schemas = JSON.parse(
	JSON.stringify(described.components.schemas).replaceAll("#/components/schemas/", "#/$defs/"),
);
for (const schema of Object.values(schemas)) {
	delete schema.discriminator; // OpenAPI's own
	delete schema.title; // a type is called as it is in the description
}
const root = {
	type: "object",
	properties: Object.fromEntries(USED.map((name) => [name, { $ref: `#/$defs/${name}` }])),
	$defs: schemas,
};
process.stdout.write(await compile(root, "Wire", { bannerComment: HEAD, additionalProperties: false, format: false }));

async function text(stream) {
	const pieces = [];
	for await (const piece of stream) pieces.push(piece);
	return Buffer.concat(pieces).toString("utf8");
}
