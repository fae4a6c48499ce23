import type { Settings } from "./settings";

/** What goes with every question, folded away. */
export function SettingsPanel({ settings, onChange }: { settings: Settings; onChange: (change: Partial<Settings>) => void }) {
  const set = [settings.instructions && "instructions", settings.tools && "tools", settings.schema && "schema"].filter(Boolean);
  return (
    <details className="settings">
      <summary>{set.length > 0 ? `With ${set.join(", ")}` : "Instructions, tools, structured answer"}</summary>
      <label>
        Instructions
        <textarea rows={3} value={settings.instructions} onChange={(event) => onChange({ instructions: event.target.value })} />
      </label>
      <label>
        Tools: a JSON list of functions
        <textarea
          rows={3}
          spellCheck={false}
          placeholder='[{"type": "function", "name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}]'
          value={settings.tools}
          onChange={(event) => onChange({ tools: event.target.value })}
        />
      </label>
      <label>
        The answer’s JSON schema
        <textarea rows={3} spellCheck={false} value={settings.schema} onChange={(event) => onChange({ schema: event.target.value })} />
      </label>
    </details>
  );
}
