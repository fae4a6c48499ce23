import type { ReactNode } from "react";
import type { Loaded } from "./useLoad";

/** What an error says, with a way on. */
export function Problem({ error, again }: { error: { message: string; code: string | null }; again?: () => void }) {
  return (
    <div className="problem" role="alert">
      <p>
        {error.message} {error.code && <code>{error.code}</code>}
      </p>
      {again && (
        <button type="button" onClick={again}>
          Try again
        </button>
      )}
    </div>
  );
}

/** One of loading, error, empty, or what was loaded. Old data stays in sight under a newer error. */
export function Shown<T>({
  loaded,
  empty,
  isEmpty,
  children,
}: {
  loaded: Loaded<T>;
  empty: ReactNode;
  isEmpty: (data: T) => boolean;
  children: (data: T) => ReactNode;
}) {
  const { data, error, again } = loaded;
  return (
    <>
      {error && <Problem error={error} again={again} />}
      {data === null && !error && (
        <div className="skeleton" role="status">
          Loading…
        </div>
      )}
      {data !== null && (isEmpty(data) ? <div className="empty">{empty}</div> : children(data))}
    </>
  );
}
