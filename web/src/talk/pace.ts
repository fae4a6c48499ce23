/** So much longer than drawing took the page is left to itself before it is drawn again. */
const REST = 2;
/** A page that is not seen has no frames; it goes by this many ms. */
const UNSEEN = 100;

/**
 * Draws when something is due: at most once a frame, however much comes, and the more seldom the longer it takes, so
 * that scrolling and typing stay smooth beside a very long answer.
 */
export class Pace {
  #due = false;
  #rested = 0;

  constructor(private readonly draw: () => void) {}

  due = (): void => {
    if (this.#due) return;
    this.#due = true;
    const wait = this.#rested - performance.now();
    if (wait > 0) setTimeout(this.#next, wait);
    else this.#next();
  };

  #next = (): void => {
    let drawn = false;
    const draw = () => {
      if (drawn) return;
      drawn = true;
      this.#due = false;
      const began = performance.now();
      this.draw();
      // React draws in a microtask of its own, which comes first.
      queueMicrotask(() => {
        const ended = performance.now();
        this.#rested = ended + (ended - began) * REST;
      });
    };
    requestAnimationFrame(draw);
    setTimeout(draw, UNSEEN);
  };
}
