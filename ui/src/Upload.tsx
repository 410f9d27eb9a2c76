/** Files brought into the collection: dropped or chosen, sent, and followed until they can be searched. */

import { type DragEvent, useRef, useState } from "react";
import type { Numbered } from "./client";
import { forgetDocuments } from "./passages";
import { reasonOf, send, sendForm } from "./server";
import { listen } from "./stream";
import type { Event, FailedDocument, Job } from "./wire";

const KINDS = ".md,.markdown,.txt,.html,.htm,.pdf,.jsonl,.ndjson,.gz";

/** An upload under way, or what came of it. */
export interface Progress {
	key: number;
	name: string;
	/** Share of the bytes that has left, 0 to 1. */
	sent: number;
	done: number;
	total: number;
	stored: number;
	unchanged: number;
	failed: number;
	/** The first of those that failed. */
	failures: FailedDocument[];
	ended: boolean;
	problem?: string;
}

export interface Uploads {
	list: Progress[];
	begin(files: File[]): void;
}

/** What is being uploaded, or was, since the page was opened. */
export function useUploads(): Uploads {
	const [list, setList] = useState<Progress[]>([]);
	const begin = (files: File[]) => {
		if (!files.length) return;
		const begun = newProgress(files);
		setList((now) => [begun, ...now]);
		void upload(files, (change) => setList((now) => now.map((each) => (each.key === begun.key ? change(each) : each))));
	};
	return { list, begin };
}

export function Upload({ list, begin }: Uploads) {
	const [over, setOver] = useState(false);
	const input = useRef<HTMLInputElement>(null);
	const drop = (event: DragEvent) => {
		event.preventDefault();
		setOver(false);
		begin([...event.dataTransfer.files]);
	};
	return (
		<section aria-label="Upload">
			{/* biome-ignore lint/a11y/noStaticElementInteractions: the button in it does the same by keyboard */}
			<div
				className={over ? "drop over" : "drop"}
				onDragOver={(event) => {
					event.preventDefault();
					setOver(true);
				}}
				onDragLeave={() => setOver(false)}
				onDrop={drop}
			>
				<button type="button" onClick={() => input.current?.click()}>
					Add files
				</button>
				<span>or drop them here: Markdown, text, HTML, PDF, JSON lines</span>
				<input
					ref={input}
					type="file"
					multiple
					hidden
					accept={KINDS}
					aria-label="Files"
					onChange={(event) => {
						begin([...(event.target.files ?? [])]);
						event.target.value = "";
					}}
				/>
			</div>
			<ul className="uploads">
				{list.map((progress) => (
					<UploadEntry key={progress.key} progress={progress} />
				))}
			</ul>
		</section>
	);
}

function UploadEntry({ progress }: { progress: Progress }) {
	const { name, ended, failures, problem } = progress;
	return (
		<li>
			<span>{name}</span> <span className="soft">{stateOf(progress)}</span>
			<span className="sr-only" role="status">
				{ended && `${name}: ${stateOf(progress)}`}
			</span>
			{!ended && <progress aria-label={`Progress of ${name}`} value={shareOf(progress)} max={1} />}
			{problem && (
				<p className="notice failed" role="alert">
					{problem}
				</p>
			)}
			{failures.length > 0 && (
				<ul className="failed">
					{failures.map(({ path, reason }, n) => (
						// biome-ignore lint/suspicious/noArrayIndexKey: failures are only ever appended
						<li key={n}>
							{path} {reason}
						</li>
					))}
				</ul>
			)}
		</li>
	);
}

function stateOf({ ended, sent, done, total, stored, unchanged, failed, problem }: Progress): string {
	if (ended) {
		const parts = [stored && `${stored} added`, unchanged && `${unchanged} unchanged`, failed && `${failed} failed`];
		return parts.filter(Boolean).join(", ") || (problem ? "failed" : "nothing in it");
	}
	return sent < 1 ? `sending, ${Math.round(100 * sent)} %` : `${done} of ${total} read`;
}

/** Sending is the first tenth of the way. */
function shareOf({ sent, done, total }: Progress): number {
	return 0.1 * sent + 0.9 * (total ? done / total : 0);
}

let uploaded = 0;

function newProgress(files: File[]): Progress {
	const name = files.length === 1 ? (files[0]?.name ?? "") : `${files.length} files`;
	const nothing = { sent: 0, done: 0, total: files.length, stored: 0, unchanged: 0, failed: 0, failures: [] };
	return { key: ++uploaded, name, ...nothing, ended: false };
}

async function upload(files: File[], update: (change: (progress: Progress) => Progress) => void): Promise<void> {
	const form = new FormData();
	for (const file of files) form.append("file", file);
	const heard = (events: Numbered[]) => update((progress) => events.reduce(take, progress));
	try {
		const job = await sendForm<Job>("/documents", form, (sent) => update((now) => ({ ...now, sent })));
		update((now) => ({ ...now, sent: 1 }));
		const leave = new AbortController();
		const begin = () => send(`/jobs/${job.job_id}/events`);
		await listen(begin, { heard }, leave.signal);
	} catch (problem) {
		update((now) => ({ ...now, problem: reasonOf(problem) }));
	} finally {
		forgetDocuments();
		update((now) => ({ ...now, ended: true }));
	}
}

/** Take in an event of the job. */
function take(progress: Progress, numbered: Numbered): Progress {
	const event = numbered.event as Event;
	switch (event.type) {
		case "ingestion_start":
			return { ...progress, total: event.content.total };
		case "ingestion_progress": {
			const { failures, ...counts } = event.content;
			return { ...progress, ...counts, failures: [...progress.failures, ...failures] };
		}
		case "error":
			return { ...progress, problem: event.content.message };
		default:
			return progress;
	}
}
