//! Keeps ONNX Runtime from reporting to its maker.
//!
//! From 1.29 on, the official library makes a device id, queues an event that names the program and
//! the system, and sends it over HTTPS. It does so while it initialises, before its own switch, a
//! function of the initialised library, can be turned. Only an environment variable that is there
//! from the beginning prevents all of it.

use std::env;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

/// Read by ONNX Runtime when it initialises; `1` means that nothing is made, kept or sent.
const SWITCH: &str = "ORT_DISABLE_TELEMETRY";

/// Starts the program anew in this process, with the switch set, unless it is set already. The
/// process id, the open files and the terminal stay as they are.
///
/// A process cannot safely change its environment once libraries may read it, hence the new start.
/// Returns an error when that is refused; nothing may load ONNX Runtime then.
pub fn ensure() -> io::Result<()> {
    if env::var_os(SWITCH).is_some_and(|value| value == "1") {
        return Ok(());
    }
    let mut arguments = env::args_os();
    let mut again = Command::new(env::current_exe()?);
    if let Some(name) = arguments.next() {
        again.arg0(name);
    }
    Err(again.args(arguments).env(SWITCH, "1").exec())
}
