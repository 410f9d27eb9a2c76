/** What is asked for in between: a key, and whether a link is to be followed. */

import { type FormEvent, type ReactNode, useEffect, useRef, useState } from "react";
import { rememberKey } from "./server";

function Dialog({ title, close, children }: { title: string; close(): void; children: ReactNode }) {
	const dialog = useRef<HTMLDialogElement>(null);
	useEffect(() => dialog.current?.showModal(), []);
	return (
		<dialog ref={dialog} onClose={close} aria-label={title}>
			<h2>{title}</h2>
			{children}
		</dialog>
	);
}

export function FollowLink({ address, close }: { address: string; close(): void }) {
	const safe = /^https?:\/\//i.test(address);
	return (
		<Dialog title="Leave this page?" close={close}>
			<p>{safe ? "This link leads to" : "This link cannot be opened from here:"}</p>
			<p className="address">{address}</p>
			<form method="dialog">
				<button type="submit">Stay</button>
				{safe && (
					<a className="primary" href={address} target="_blank" rel="noopener noreferrer" onClick={close}>
						Open
					</a>
				)}
			</form>
		</Dialog>
	);
}

export function AskForKey({ close, known }: { close(): void; known(): void }) {
	const [key, setKey] = useState("");
	const submit = (event: FormEvent) => {
		event.preventDefault();
		rememberKey(key.trim());
		known();
		close();
	};
	return (
		<Dialog title="This server asks for a key" close={close}>
			<form onSubmit={submit}>
				<label htmlFor="key">Key</label>
				<input
					id="key"
					type="password"
					autoComplete="off"
					required
					value={key}
					onChange={(event) => setKey(event.target.value)}
				/>
				<button type="submit" className="primary">
					Go on
				</button>
			</form>
		</Dialog>
	);
}
