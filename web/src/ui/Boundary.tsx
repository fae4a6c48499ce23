import { Component, type ReactNode } from "react";
import { told } from "../api/errors";

/** What stands in for a part of the page that could not be loaded or drawn: the rest goes on. */
export class Boundary extends Component<{ children: ReactNode }, { error: unknown }> {
  override state = { error: null as unknown };

  static getDerivedStateFromError(error: unknown) {
    return { error };
  }

  override render() {
    const { error } = this.state;
    if (error === null) return this.props.children;
    return (
      <div className="problem boundary" role="alert">
        <p>This part of the console could not be loaded or shown. The server may be away, or has a newer version by now. ({told(error).message})</p>
        <button type="button" onClick={() => window.location.reload()}>
          Load the console again
        </button>
      </div>
    );
  }
}
