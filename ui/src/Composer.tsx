/** The box for the next question; while one is answered, the button that stops it. */

import { type FormEvent, type KeyboardEvent, useEffect, useRef } from "react";

interface Props {
	busy: boolean;
	/** The conversation is not there yet. */
	loading: boolean;
	ask(question: string): void;
	stop(): void;
	text: string;
	setText(text: string): void;
}

const MAX_CHARS = 5000;

export function Composer({ busy, loading, ask, stop, text, setText }: Props) {
	const box = useRef<HTMLTextAreaElement>(null);

	useEffect(() => {
		if (loading) return;
		if (!busy) {
			const { activeElement, body } = document;
			if (activeElement === body || box.current?.form?.contains(activeElement)) box.current?.focus();
			return; // whoever reads elsewhere stays there
		}
		const stopByKey = (event: globalThis.KeyboardEvent) => {
			if (
				event.key === "Escape" &&
				!event.isComposing &&
				!document.querySelector("[role=dialog], [role=alertdialog], input:focus")
			)
				stop();
		};
		window.addEventListener("keydown", stopByKey);
		return () => window.removeEventListener("keydown", stopByKey);
	}, [busy, loading, stop]);

	const submit = (event?: FormEvent) => {
		event?.preventDefault();
		if (busy || loading || !text.trim()) return;
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
				disabled={busy || loading}
				placeholder="Ask the collection"
				onChange={(event) => setText(event.target.value)}
				onKeyDown={onKeyDown}
			/>
			{busy ? (
				// the keys make them two elements: else the click that stops would send what is in the box
				<button key="stop" type="button" className="primary" onClick={stop}>
					Stop
				</button>
			) : (
				<button key="send" type="submit" className="primary" disabled={loading || !text.trim()}>
					Send
				</button>
			)}
		</form>
	);
}
