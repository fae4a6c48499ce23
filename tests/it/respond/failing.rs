//! What becomes of events when models or their answers fail.
