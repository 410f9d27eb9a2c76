/** Requests to the server that this page came from. */

import { accepted, Refused, refusal } from "./client";

const KEY = "stagecast.key";

const keys = new EventTarget();

/** Kept for this tab only. */
export function rememberKey(key: string): void {
	sessionStorage.setItem(KEY, key);
	keys.dispatchEvent(new window.Event("known"));
}

/** Whether a key was given, good or not. */
export function hasKey(): boolean {
	return sessionStorage.getItem(KEY) !== null;
}

/** Be told when the server asks for a key (`needed`), or when another one is used (`known`); returns how to stop that. */
export function onKey(what: "needed" | "known", told: () => void): () => void {
	keys.addEventListener(what, told);
	return () => keys.removeEventListener(what, told);
}

/** Send a request; whatever is not 2xx is thrown as `Refused`, a broken connection as `TypeError`. */
export async function send(path: string, init: RequestInit = {}): Promise<Response> {
	const headers = new Headers(init.headers);
	for (const [name, value] of authorization()) headers.set(name, value);
	return accepted(fetch(path, { ...init, headers })).catch((problem) => {
		throw noticed(problem);
	});
}

export async function read<T>(path: string, init: RequestInit = {}): Promise<T> {
	return (await send(path, init)).json();
}

export function withBody(method: string, body: unknown): RequestInit {
	return { method, body: JSON.stringify(body), headers: { "Content-Type": "application/json" } };
}

/** Send a form; `sent` is told the share that has left, 0 to 1, which `fetch` cannot tell. */
export function sendForm<T>(path: string, form: FormData, sent: (share: number) => void): Promise<T> {
	return new Promise((resolve, reject) => {
		const request = new XMLHttpRequest();
		request.open("POST", path);
		for (const [name, value] of authorization()) request.setRequestHeader(name, value);
		request.upload.onprogress = ({ loaded, total }) => sent(total ? loaded / total : 1);
		request.onerror = () => reject(new TypeError("The connection broke."));
		request.onload = () => {
			if (request.status >= 300) return reject(noticed(refusal(request.status, request.responseText)));
			try {
				resolve(JSON.parse(request.responseText));
			} catch {
				reject(refusal(request.status, "")); // the page of a proxy, say
			}
		};
		request.send(form);
	});
}

function authorization(): [string, string][] {
	const key = sessionStorage.getItem(KEY);
	return key ? [["Authorization", `Bearer ${key}`]] : [];
}

/** A refusal for want of a key makes the page ask for one. */
function noticed<T>(problem: T): T {
	if (problem instanceof Refused && problem.status === 401) keys.dispatchEvent(new window.Event("needed"));
	return problem;
}

/** What to say of a request that failed. */
export function reasonOf(problem: unknown): string {
	return problem instanceof Refused ? problem.message : "The server cannot be reached.";
}
