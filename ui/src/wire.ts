// Made by `just types` from the server's own description; not to be changed by hand.


/**
 * The data of one Server-Sent Event. Stages of plugins add types of their own, `<stage>_start` and `<stage>_complete`; a client should pass over types it does not know.
 */
export type Event = (RunStart | CondenseStart | CondenseComplete | RetrievalStart | RetrievalComplete | RerankingStart | RerankingComplete | Sources | GenerationStart | Token | GenerationComplete | Done | Error | Cancelled | IngestionStart | IngestionProgress | IngestionComplete)
/**
 * The stable name of a failure, as clients see it in an ``error`` event.
 */
export type Code = ("GENERATION_ERROR" | "IDLE_TIMEOUT" | "INGESTION_ERROR" | "INTERNAL_ERROR" | "RERANKING_ERROR" | "RETRIEVAL_ERROR" | "SERVER_RESTART" | "STAGE_ERROR" | "UPSTREAM_TRUNCATED" | "WORKER_LOST")

export interface Wire {
Event?: Event
ChatRequest?: ChatRequest
Answer?: Answer
SessionPage?: SessionPage
SessionRow?: SessionRow
MessagePage?: MessagePage
DocumentPage?: DocumentPage
WholeDocument?: WholeDocument
SearchResult?: SearchResult
Job?: Job
}
/**
 * The first event of every run, before any stage works.
 */
export interface RunStart {
type: "run_start"
content: RunStarted
timestamp: string
}
/**
 * Ids under which the run can be watched and the conversation continued.
 */
export interface RunStarted {
stage: string
status: string
run_id: string
session_id: string
}
/**
 * A question that leans on the conversation is being rewritten; others have neither this event nor the next.
 */
export interface CondenseStart {
type: "condense_start"
content: Started
timestamp: string
}
/**
 * A stage has begun.
 */
export interface Started {
stage: string
status: string
}
/**
 * The question now stands alone.
 */
export interface CondenseComplete {
type: "condense_complete"
content: Condensed
timestamp: string
}
/**
 * What is searched for instead of the question, and who made it: ``llm``, or ``carried``, by rules alone.
 */
export interface Condensed {
stage: string
status: string
query: string
method: string
elapsed_ms: number
queued_ms: number
}
/**
 * The search for passages begins.
 */
export interface RetrievalStart {
type: "retrieval_start"
content: Started1
timestamp: string
}
/**
 * A stage has begun.
 */
export interface Started1 {
stage: string
status: string
}
/**
 * The search for passages has ended.
 */
export interface RetrievalComplete {
type: "retrieval_complete"
content: RetrievalCompleted
timestamp: string
}
/**
 * How many passages were found; none is not an error.
 */
export interface RetrievalCompleted {
stage: string
status: string
doc_count: number
elapsed_ms: number
queued_ms: number
}
/**
 * The passages are about to be put in order.
 */
export interface RerankingStart {
type: "reranking_start"
content: RerankingStarted
timestamp: string
}
/**
 * How many passages are about to be put in order.
 */
export interface RerankingStarted {
stage: string
status: string
candidates: number
}
/**
 * The passages are in their final order.
 */
export interface RerankingComplete {
type: "reranking_complete"
content: RerankingCompleted
timestamp: string
}
/**
 * How many passages were kept, and what ordered them (``method``; ``fused``: no reranking model was at hand).
 */
export interface RerankingCompleted {
stage: string
status: string
selected: number
elapsed_ms: number
queued_ms: number
method: string
}
/**
 * Sent before the first token.
 */
export interface Sources {
type: "sources"
content: SourceList
timestamp: string
}
/**
 * The passages given to the LLM, best first.
 */
export interface SourceList {
stage: string
status: string
sources: Source[]
}
/**
 * A passage that the answer may cite as ``[n]``; ``score`` is in 0..1, ``snippet`` at most 300 characters.
 */
export interface Source {
n: number
document_id: string
title: string
url: (string | null)
snippet: string
score: number
}
/**
 * The LLM is asked.
 */
export interface GenerationStart {
type: "generation_start"
content: GenerationStarted
timestamp: string
}
/**
 * Which model writes the answer; ``extractive`` quotes the passages and writes nothing of its own.
 */
export interface GenerationStarted {
stage: string
status: string
model: string
}
/**
 * The next piece of the answer; the answer is the tokens joined with nothing between.
 */
export interface Token {
type: "token"
content: string
timestamp: string
}
/**
 * The LLM has ended; ``finish_reason`` says why: ``stop``, ``length``, ``content_filter``, ``no_sources``.
 */
export interface GenerationComplete {
type: "generation_complete"
content: GenerationCompleted
timestamp: string
}
/**
 * ``token_count`` and ``first_token_ms`` (from the stage's beginning; null without a token) are the runner's.
 */
export interface GenerationCompleted {
stage: string
status: string
token_count: number
first_token_ms: (number | null)
elapsed_ms: number
queued_ms: number
finish_reason: string
}
/**
 * The last event of a run that succeeded, sent only after the answer is stored.
 */
export interface Done {
type: "done"
content: Finished
timestamp: string
}
/**
 * The stored answer and the time of every stage.
 */
export interface Finished {
run_id: string
message_id: string
elapsed_ms: number
stages: {
[k: string]: StageTime
}
}
/**
 * Time from a stage's beginning to its end.
 */
export interface StageTime {
elapsed_ms: number
}
/**
 * The last event of a run, or a job, that failed.
 */
export interface Error {
type: "error"
content: Failure
timestamp: string
}
/**
 * ``message`` is for people, ``code`` for programs; ``retryable``: sending the same message again can help.
 */
export interface Failure {
message: string
code: Code
stage: string
retryable: boolean
}
/**
 * The last event of a run that was stopped.
 */
export interface Cancelled {
type: "cancelled"
content: Stopped
timestamp: string
}
/**
 * In which stage the run was stopped, and how many tokens of its answer were kept.
 */
export interface Stopped {
stage: string
status: string
tokens_kept: number
}
/**
 * The first event of a job; one that waits for others has none.
 */
export interface IngestionStart {
type: "ingestion_start"
content: IngestionStarted
timestamp: string
}
/**
 * How many documents are expected: one a file, one a line of JSON lines.
 */
export interface IngestionStarted {
stage: string
status: string
job_id: string
total: number
}
/**
 * More documents are stored; at most 100 failures of a job are told one by one.
 */
export interface IngestionProgress {
type: "ingestion_progress"
content: IngestionProgressed
timestamp: string
}
/**
 * How many documents are done, and what became of them; ``failures`` are those since the event before.
 */
export interface IngestionProgressed {
stage: string
status: string
total: number
done: number
stored: number
unchanged: number
failed: number
failures: FailedDocument[]
}
/**
 * A file, or a line of it (``corpus.jsonl:17``), that gave no document; ``reason`` goes on after the path.
 */
export interface FailedDocument {
path: string
reason: string
}
/**
 * The last event of a job, also when documents failed; ``error`` comes instead when it could not go on.
 */
export interface IngestionComplete {
type: "ingestion_complete"
content: IngestionCompleted
timestamp: string
}
/**
 * What became of the documents; ``elapsed_ms`` counts from the upload.
 */
export interface IngestionCompleted {
stage: string
status: string
total: number
stored: number
unchanged: number
failed: number
elapsed_ms: number
}
export interface ChatRequest {
message: string
session_id?: (string | null)
stream?: (boolean | null)
on_disconnect?: ("cancel" | "continue")
if_busy?: ("reject" | "cancel")
filters?: {
[k: string]: string | number | boolean
}
}
export interface Answer {
run_id: string
session_id: string
message_id: string
status: ("running" | "completed" | "cancelled" | "error")
answer: string
sources: Source[]
stages: {
[k: string]: StageTime
}
elapsed_ms: number
finish_reason: (string | null)
error?: (Failure | null)
}
export interface SessionPage {
sessions: SessionRow[]
total: number
limit: number
offset: number
}
export interface SessionRow {
id: string
title: string
created_at: string
updated_at: string
messages: number
running: (string | null)
}
export interface MessagePage {
messages: MessageRow[]
total: number
limit: number
offset: number
}
export interface MessageRow {
id: string
run_id: string
role: string
content: string
status: string
created_at: string
sources: Source[]
error: (Failure | null)
}
export interface DocumentPage {
documents: DocumentRow[]
total: number
limit: number
offset: number
}
export interface DocumentRow {
id: string
title: string
url: (string | null)
metadata: {
[k: string]: unknown
}
size_bytes: number
chunk_count: number
updated_at: string
}
export interface WholeDocument {
id: string
title: string
url: (string | null)
metadata: {
[k: string]: unknown
}
size_bytes: number
chunk_count: number
updated_at: string
text: string
chunks: ChunkRow[]
}
export interface ChunkRow {
id: number
position: number
heading: string
text: string
}
export interface SearchResult {
query: string
method: string
passages: Passage[]
}
export interface Passage {
chunk_id: number
document_id: string
title: string
text: string
url?: (string | null)
heading?: string
position?: number
score: number
scores?: {
[k: string]: number
}
metadata?: {
[k: string]: unknown
}
}
export interface Job {
job_id: string
status: ("queued" | "running" | "completed" | "error")
total: number
done: number
stored: number
unchanged: number
failed: number
failures: FailedDocument[]
created_at: string
elapsed_ms: number
error: (Failure | null)
}
