import { APIConnectionError, APIError, APIUserAbortError } from "openai";

/** What went wrong, in words for the person who sees it, with the code that docs/errors.md explains. */
export function told(error: unknown): { message: string; code: string | null } {
  if (error instanceof APIConnectionError) {
    return { message: "The server cannot be reached. Check the network, and whether it runs.", code: null };
  }
  if (error instanceof APIError) {
    const body = error.error as { message?: string } | undefined;
    return { message: body?.message ?? error.message, code: error.code ?? null };
  }
  return { message: error instanceof Error ? error.message : String(error), code: null };
}

export function isAbort(error: unknown): boolean {
  return error instanceof APIUserAbortError || (error instanceof DOMException && error.name === "AbortError");
}

/** The status of an answer; undefined if none came. */
export function statusOf(error: unknown): number | undefined {
  return error instanceof APIError ? (error.status as number | undefined) : undefined;
}
