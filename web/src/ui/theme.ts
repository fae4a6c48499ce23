import { useLayoutEffect, useState } from "react";

export type Theme = "system" | "light" | "dark";
const KEY = "colloquy.theme";

export function useTheme(): [Theme, () => void] {
  const [theme, setTheme] = useState<Theme>(() => {
    const stored = localStorage.getItem(KEY);
    return stored === "light" || stored === "dark" ? stored : "system";
  });
  // Before anything is painted: a page must not flash in the other theme.
  useLayoutEffect(() => {
    if (theme === "system") delete document.documentElement.dataset["theme"];
    else document.documentElement.dataset["theme"] = theme;
    localStorage.setItem(KEY, theme);
  }, [theme]);
  const next = () => setTheme((was) => (was === "system" ? "light" : was === "light" ? "dark" : "system"));
  return [theme, next];
}
