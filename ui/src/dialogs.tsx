/** What is asked for in between: a key, a title, whether something is to be deleted, whether a link is to be followed. */

import { AlertDialog } from "@base-ui/react/alert-dialog";
import { Dialog } from "@base-ui/react/dialog";
import { type FormEvent, type ReactNode, useState } from "react";
import { hasKey, rememberKey } from "./server";

interface Closing {
	close(): void;
}

function Window({ title, close, children }: Closing & { title: string; children: ReactNode }) {
	return (
		<Dialog.Root open onOpenChange={(open) => open || close()}>
			<Dialog.Portal>
				<Dialog.Backdrop className="backdrop" />
				<Dialog.Popup className="window">
					<Dialog.Title>{title}</Dialog.Title>
					{children}
				</Dialog.Popup>
			</Dialog.Portal>
		</Dialog.Root>
	);
}

export function FollowLink({ address, close }: Closing & { address: string }) {
	const leads = webAddress(address);
	return (
		<Window title="Leave this page?" close={close}>
			<Dialog.Description>
				{leads ? `This link leads to ${leads.host}` : "This link cannot be opened from here:"}
			</Dialog.Description>
			<p className="address" dir="ltr">
				{leads?.href ?? address}
			</p>
			<div className="choices">
				<Dialog.Close>Stay</Dialog.Close>
				{leads && (
					<a className="primary" href={leads.href} target="_blank" rel="noopener noreferrer" onClick={close}>
						Open
					</a>
				)}
			</div>
		</Window>
	);
}

/** As a browser understands it, whatever it looks like; undefined for all that is not of the web. */
function webAddress(address: string): URL | undefined {
	return /^https?:\/\//i.test(address) && URL.canParse(address) ? new URL(address) : undefined;
}

interface QuestionProps extends Closing {
	title: string;
	label: string;
	given?: string;
	secret?: boolean;
	answer: string;
	answered(text: string): void;
}

function Question({ title, label, given = "", secret = false, answer, answered, close }: QuestionProps) {
	const [text, setText] = useState(given);
	const submit = (event: FormEvent) => {
		event.preventDefault();
		if (!text.trim()) return;
		answered(text.trim());
		close();
	};
	return (
		<Window title={title} close={close}>
			<form onSubmit={submit}>
				<label>
					{label}
					<input
						type={secret ? "password" : "text"}
						autoComplete="off"
						required
						maxLength={secret ? 512 : 200}
						value={text}
						onChange={(event) => setText(event.target.value)}
					/>
				</label>
				<div className="choices">
					<Dialog.Close>Cancel</Dialog.Close>
					<button type="submit" className="primary">
						{answer}
					</button>
				</div>
			</form>
		</Window>
	);
}

export function AskForKey({ close }: Closing) {
	return (
		<Question
			title={hasKey() ? "This key is not known here" : "This server asks for a key"}
			label="Key"
			secret
			answer="Go on"
			answered={rememberKey}
			close={close}
		/>
	);
}

export function Rename({ title, renamed, close }: Closing & { title: string; renamed(title: string): void }) {
	return <Question title="Rename" label="Title" given={title} answer="Rename" answered={renamed} close={close} />;
}

export function Delete({ what, deleted, close }: Closing & { what: string; deleted(): void }) {
	return (
		<AlertDialog.Root open onOpenChange={(open) => open || close()}>
			<AlertDialog.Portal>
				<AlertDialog.Backdrop className="backdrop" />
				<AlertDialog.Popup className="window">
					<AlertDialog.Title>Delete?</AlertDialog.Title>
					<AlertDialog.Description>{what} This cannot be undone.</AlertDialog.Description>
					<div className="choices">
						<AlertDialog.Close>Keep</AlertDialog.Close>
						<AlertDialog.Close className="dangerous" onClick={deleted}>
							Delete
						</AlertDialog.Close>
					</div>
				</AlertDialog.Popup>
			</AlertDialog.Portal>
		</AlertDialog.Root>
	);
}
