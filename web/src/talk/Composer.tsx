import { type ReactNode, type RefObject, useLayoutEffect, useState } from "react";
import type { Item, Part } from "../api/types";

/** Bytes of one image: with base64 around it, several still fit into a request (REQUEST_BODY_MAX). */
const IMAGE_MAX = 5_000_000;

export function Composer({
  field,
  text,
  onText,
  running,
  disabled,
  onSend,
  onStop,
  children,
}: {
  field: RefObject<HTMLTextAreaElement | null>;
  text: string;
  onText: (text: string) => void;
  running: boolean;
  disabled: boolean;
  onSend: (item: Item) => void;
  onStop: () => void;
  children?: ReactNode;
}) {
  const [images, setImages] = useState<{ name: string; url: string }[]>([]);
  const [problem, setProblem] = useState<string | null>(null);

  useLayoutEffect(() => {
    const area = field.current;
    if (!area) return;
    area.style.height = "auto";
    area.style.height = `${Math.min(area.scrollHeight, 240)}px`;
  }, [field, text]);

  const attach = async (files: Iterable<File>) => {
    setProblem(null);
    for (const file of files) {
      if (!file.type.startsWith("image/")) setProblem(`${file.name} is no image.`);
      else if (file.size > IMAGE_MAX) setProblem(`${file.name} is larger than ${IMAGE_MAX / 1e6} MB.`);
      else {
        const url = await dataUrl(file);
        setImages((images) => [...images, { name: file.name, url }]);
      }
    }
  };

  const send = () => {
    if (disabled || running || (!text.trim() && images.length === 0)) return;
    const content: Part[] = images.map(({ url }) => ({ type: "input_image", image_url: url }));
    if (text.trim()) content.push({ type: "input_text", text });
    setImages([]);
    onSend({ type: "message", role: "user", content });
  };

  return (
    <form
      className="composer"
      onSubmit={(event) => {
        event.preventDefault();
        send();
      }}
      onDragOver={(event) => event.preventDefault()}
      onDrop={(event) => {
        event.preventDefault();
        void attach(event.dataTransfer.files);
      }}
    >
      {problem && (
        <p className="problem" role="alert">
          {problem}
        </p>
      )}
      {images.length > 0 && (
        <ul className="attached">
          {images.map(({ name, url }, at) => (
            <li key={at}>
              <img src={url} alt={name} />
              <button
                type="button"
                className="quiet"
                aria-label={`Remove ${name}`}
                onClick={() => setImages(images.filter((_, other) => other !== at))}
              >
                ✕
              </button>
            </li>
          ))}
        </ul>
      )}
      <textarea
        ref={field}
        aria-label="Message"
        placeholder="Say something"
        rows={1}
        value={text}
        onChange={(event) => onText(event.target.value)}
        onPaste={(event) => {
          if (event.clipboardData.files.length > 0) {
            event.preventDefault();
            void attach(event.clipboardData.files);
          }
        }}
        onKeyDown={(event) => {
          if (event.key === "Enter" && !event.shiftKey && !event.nativeEvent.isComposing) {
            event.preventDefault();
            send();
          }
        }}
      />
      <div className="tools">
        {children}
        <label className="attach">
          Image
          <input
            type="file"
            accept="image/*"
            multiple
            onChange={(event) => {
              void attach([...(event.target.files ?? [])]);
              event.target.value = "";
            }}
          />
        </label>
        {running ? (
          <button type="button" className="primary" onClick={onStop}>
            Stop
          </button>
        ) : (
          <button type="submit" className="primary" disabled={disabled || (!text.trim() && images.length === 0)}>
            Send
          </button>
        )}
      </div>
    </form>
  );
}

function dataUrl(file: File): Promise<string> {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(String(reader.result));
    reader.onerror = () => reject(reader.error ?? new Error(`${file.name} cannot be read.`));
    reader.readAsDataURL(file);
  });
}
