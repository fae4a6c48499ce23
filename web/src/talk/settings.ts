import { useState } from "react";

/** How turns are asked for. Kept for the tab: instructions may be confidential. */
export interface Settings {
  model: string;
  instructions: string;
  /** JSON: a list of function tools, or nothing. */
  tools: string;
  /** A JSON schema, or nothing. */
  schema: string;
}

const KEY = "colloquy.settings";
const EMPTY: Settings = { model: "", instructions: "", tools: "", schema: "" };

export function useSettings(): [Settings, (change: Partial<Settings>) => void] {
  const [settings, setSettings] = useState<Settings>(() => {
    try {
      return { ...EMPTY, ...(JSON.parse(sessionStorage.getItem(KEY) ?? "{}") as Partial<Settings>) };
    } catch {
      return EMPTY;
    }
  });
  const change = (change: Partial<Settings>) => {
    const next = { ...settings, ...change };
    sessionStorage.setItem(KEY, JSON.stringify(next));
    setSettings(next);
  };
  return [settings, change];
}

/** What the settings add to a request. Throws with words for the person if JSON is none. */
export function fields(settings: Settings): { instructions?: string; tools?: object[]; text?: object } {
  const tools = json("Tools", settings.tools);
  if (tools !== undefined && !Array.isArray(tools)) throw new Error("Tools: expected a list, [ … ].");
  const schema = json("Answer's schema", settings.schema);
  return {
    ...(settings.instructions.trim() && { instructions: settings.instructions }),
    ...(tools && tools.length > 0 && { tools: tools as object[] }),
    ...(schema !== undefined && { text: { format: { type: "json_schema", name: "answer", schema, strict: true } } }),
  };
}

function json(name: string, text: string): unknown {
  if (!text.trim()) return undefined;
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new Error(`${name}: this is no JSON. ${error instanceof Error ? error.message : ""}`);
  }
}
