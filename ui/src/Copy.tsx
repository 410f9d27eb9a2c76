/** A button that copies a text. */

import { useState } from "react";

const SHOWN_MS = 2000;

export function Copy({ label, text }: { label: string; text(): string }) {
	const [copied, setCopied] = useState(false);
	const onClick = async () => {
		setCopied(await copy(text()));
		window.setTimeout(() => setCopied(false), SHOWN_MS);
	};
	return (
		<button type="button" className="quiet" aria-label={label} onClick={() => void onClick()}>
			<span aria-live="polite">{copied ? "Copied" : "Copy"}</span>
		</button>
	);
}

async function copy(text: string): Promise<boolean> {
	try {
		await navigator.clipboard.writeText(text);
		return true;
	} catch {
		return copyByCommand(text); // there is no clipboard on addresses without TLS
	}
}

function copyByCommand(text: string): boolean {
	const box = document.createElement("textarea");
	box.value = text;
	document.body.append(box);
	box.select();
	const copied = document.execCommand("copy");
	box.remove();
	return copied;
}
