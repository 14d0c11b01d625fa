//! Lamp and buzzer of the configured door, where there are any.

use std::sync::Arc;
use std::thread::JoinHandle;

use tracing::warn;

use crate::daemon::door::Door;
use crate::door::select;
use crate::door::signalling;
use crate::door::signalling::SignallingParts;
use crate::shutdown::StopSignal;

/// Starts their thread; `None` without either. A failure is told and is no reason not to start: the
/// door works without them.
pub fn start(door: &Door, stop: &StopSignal) -> Option<JoinHandle<()>> {
    let parts = &door.desk.parts;
    let (backend, wiring) = (parts.config.backend, parts.config.wiring.clone());
    if wiring.led.is_none() && wiring.buzzer.is_none() {
        return None;
    }
    let keeper = door.keeper.clone();
    let started = signalling::start(
        SignallingParts {
            faults: Arc::clone(&keeper.counters().signals),
            open: Box::new(move || select::signals(backend, &wiring)),
            look: Box::new(move || keeper.seen()),
            clock: Arc::clone(&parts.clock),
        },
        stop.clone(),
    );
    started.inspect_err(|error| warn!(%error, "the door's lamp or buzzer cannot be used")).ok()
}
