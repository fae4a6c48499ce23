import { type ReactNode, useEffect, useId, useRef, useState } from "react";
import { told } from "../api/errors";
import { Problem } from "./States";

/** Asks before something is done, takes the reason that the audit trail keeps, and says what went wrong. */
export function Confirm({
  title,
  children,
  action,
  danger = false,
  reason: asks = "optional",
  onConfirm,
  onClose,
}: {
  title: string;
  children: ReactNode;
  action: string;
  danger?: boolean;
  reason?: "needed" | "optional" | "none";
  onConfirm: (reason: string) => Promise<void>;
  onClose: () => void;
}) {
  const dialog = useRef<HTMLDialogElement>(null);
  const id = useId();
  const [reason, setReason] = useState("");
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState<ReturnType<typeof told> | null>(null);

  useEffect(() => {
    dialog.current?.showModal();
  }, []);

  const confirm = async () => {
    setBusy(true);
    setError(null);
    try {
      await onConfirm(reason.trim());
      onClose();
    } catch (problem) {
      setError(told(problem));
      setBusy(false);
    }
  };

  return (
    <dialog ref={dialog} aria-labelledby={`${id}-title`} onClose={onClose}>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          void confirm();
        }}
      >
        <h2 id={`${id}-title`}>{title}</h2>
        {children}
        {asks !== "none" && (
          <label>
            Reason, for the audit trail{asks === "optional" && " (may be left out)"}
            <input
              value={reason}
              onChange={(event) => setReason(event.target.value)}
              required={asks === "needed"}
              maxLength={500}
            />
          </label>
        )}
        {error && <Problem error={error} />}
        <div className="actions">
          <button type="button" onClick={onClose}>
            Leave it
          </button>
          <button type="submit" className={danger ? "danger" : "primary"} disabled={busy}>
            {busy ? "…" : action}
          </button>
        </div>
      </form>
    </dialog>
  );
}
