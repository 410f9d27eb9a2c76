/** Requests to the server that this page came from. */

const KEY = "stagecast.key";

/** The server refused a request, and said why. */
export class Refused extends Error {
	constructor(
		readonly status: number,
		detail: string,
		readonly runId?: string,
	) {
		super(detail);
	}

	/** Whether the same request may be answered later. */
	get passing(): boolean {
		return this.status === 503 || this.status === 429;
	}
}

/** Kept for this tab only. */
export function rememberKey(key: string): void {
	sessionStorage.setItem(KEY, key);
}

/** Send a request; whatever is not 2xx is thrown as `Refused`, a broken connection as `TypeError`. */
export async function send(path: string, init: RequestInit = {}): Promise<Response> {
	const headers = new Headers(init.headers);
	const key = sessionStorage.getItem(KEY);
	if (key) headers.set("Authorization", `Bearer ${key}`);
	const response = await fetch(path, { ...init, headers });
	if (!response.ok) throw await refusal(response);
	return response;
}

export async function read<T>(path: string, init: RequestInit = {}): Promise<T> {
	return (await send(path, init)).json();
}

export function withBody(method: string, body: unknown): RequestInit {
	return { method, body: JSON.stringify(body), headers: { "Content-Type": "application/json" } };
}

async function refusal(response: Response): Promise<Refused> {
	try {
		const problem: { detail?: string; run_id?: string } = await response.json();
		return new Refused(response.status, problem.detail ?? response.statusText, problem.run_id);
	} catch {
		return new Refused(response.status, `The server answered with status ${response.status}.`);
	}
}
