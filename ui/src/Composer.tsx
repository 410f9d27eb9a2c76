/** The box for the next question; while one is answered, the button that stops it. */

import { type FormEvent, type KeyboardEvent, useEffect, useRef } from "react";

interface Props {
	busy: boolean;
	ask(question: string): void;
	stop(): void;
	text: string;
	setText(text: string): void;
}

const MAX_CHARS = 5000;

export function Composer({ busy, ask, stop, text, setText }: Props) {
	const box = useRef<HTMLTextAreaElement>(null);

	useEffect(() => {
		if (!busy) {
			const { activeElement, body } = document;
			if (activeElement === body || box.current?.form?.contains(activeElement)) box.current?.focus();
			return; // whoever reads elsewhere stays there
		}
		const stopByKey = (event: globalThis.KeyboardEvent) => {
			if (event.key === "Escape" && !document.querySelector("[role=dialog], [role=alertdialog]")) stop();
		};
		window.addEventListener("keydown", stopByKey);
		return () => window.removeEventListener("keydown", stopByKey);
	}, [busy, stop]);

	const submit = (event?: FormEvent) => {
		event?.preventDefault();
		if (busy || !text.trim()) return;
		ask(text.trim());
		setText("");
	};
	const onKeyDown = (event: KeyboardEvent) => {
		if (event.key !== "Enter" || event.shiftKey || event.nativeEvent.isComposing) return;
		event.preventDefault();
		submit();
	};
	return (
		<form className="composer" onSubmit={submit}>
			<label className="sr-only" htmlFor="message">
				Message
			</label>
			<textarea
				id="message"
				ref={box}
				value={text}
				rows={Math.min(8, text.split("\n").length)}
				maxLength={MAX_CHARS}
				disabled={busy}
				placeholder="Ask the collection"
				onChange={(event) => setText(event.target.value)}
				onKeyDown={onKeyDown}
			/>
			{busy ? (
				<button type="button" className="primary" onClick={stop}>
					Stop
				</button>
			) : (
				<button type="submit" className="primary" disabled={!text.trim()}>
					Send
				</button>
			)}
		</form>
	);
}
