//! GPIO lines of any Linux board, by the kernel's character device.
//!
//! A line belongs to one process at a time, so a second daemon or a test beside a running daemon is
//! told who holds it. It is requested as an output with the level that releases, in one call, so it
//! never has another one. When this process ends, however it ends, the kernel takes the line back;
//! which level it has then is the driver's affair: most make it an input, some keep the level, those
//! of Raspberry Pi OS do unless `dtparam=strict_gpiod` is set. Hence the pull resistor of the guide.

use std::io;
use std::path::Path;
use std::path::PathBuf;

use gpiocdev::Chip;
use gpiocdev::Request;
use gpiocdev::line::Bias;
use gpiocdev::line::Value;
use gpiocdev::line::Values;

use crate::config::door::InputLine;
use crate::config::door::OutputLine;
use crate::config::door::Wiring;
use crate::door::Board;
use crate::door::BoardError;
use crate::door::DataLine;
use crate::door::DataLines;
use crate::door::SignalLines;
use crate::door::indicator::Levels;
use crate::door::strike::Inputs;

/// What other programs are told about who holds the lines.
const CONSUMER: &str = "facelatch";

/// One door at the lines of one chip.
pub struct ChardevBoard {
    lines: Request,
    chip: Found,
    described: String,
    wiring: Wiring,
}

impl ChardevBoard {
    /// Requests the lines; the relay is released from the first moment on.
    pub fn open(wiring: &Wiring) -> Result<Self, BoardError> {
        let chip = Found::chip(wiring)?;
        // Not those of Wiegand: when a board is opened again, frames may still be on their way.
        chip.are_free(&own_lines(wiring))?;
        let mut builder = Request::builder();
        builder.on_chip(&chip.path).with_consumer(CONSUMER);
        builder.with_line(wiring.relay_line).as_output(level(wiring, false));
        for input in inputs(wiring) {
            builder.with_line(input.line).as_input().with_bias(Bias::PullUp);
        }
        let lines = builder.request().map_err(|error| chip.failed(&error))?;
        let described = chip.described(wiring);
        Ok(Self { lines, chip, described, wiring: wiring.clone() })
    }

    fn failed(&self, what: &str, error: &gpiocdev::Error) -> BoardError {
        BoardError::new(format!("{}, {what}", self.described), error.to_string())
    }
}

/// Whether the lines can be requested; requests none.
pub fn examine(wiring: &Wiring) -> Result<String, BoardError> {
    let chip = Found::chip(wiring)?;
    chip.are_free(&all_lines(wiring))?;
    chip.are_free(&signal_lines(wiring))?;
    Ok(chip.described(wiring))
}

/// Requests the lines of lamp and buzzer on the door's chip, both off.
pub fn signals(wiring: &Wiring) -> Result<Box<dyn SignalLines>, BoardError> {
    let chip = Found::chip(wiring)?;
    chip.are_free(&signal_lines(wiring))?;
    let mut builder = Request::builder();
    builder.on_chip(&chip.path).with_consumer(CONSUMER);
    for output in [wiring.led, wiring.buzzer].into_iter().flatten() {
        builder.with_line(output.line).as_output(Value::from(!output.active_high));
    }
    let lines = builder.request().map_err(|error| chip.failed(&error))?;
    Ok(Box::new(RequestedSignals { lines, led: wiring.led, buzzer: wiring.buzzer }))
}

/// The level of the relay's line.
fn level(wiring: &Wiring, energised: bool) -> Value {
    Value::from(energised == wiring.active_high)
}

fn inputs(wiring: &Wiring) -> impl Iterator<Item = InputLine> {
    [wiring.contact, wiring.exit, wiring.tamper, wiring.bell].into_iter().flatten()
}

/// The relay and the inputs.
fn own_lines(wiring: &Wiring) -> Vec<u32> {
    let mut lines = vec![wiring.relay_line];
    lines.extend(inputs(wiring).map(|input| input.line));
    lines
}

/// With those of Wiegand.
fn all_lines(wiring: &Wiring) -> Vec<u32> {
    let mut lines = own_lines(wiring);
    lines.extend(wiring.wiegand.iter().flat_map(|wiegand| [wiegand.d0_line, wiegand.d1_line]));
    lines
}

/// Those of lamp and buzzer: no part of what the door needs.
fn signal_lines(wiring: &Wiring) -> Vec<u32> {
    [wiring.led, wiring.buzzer].into_iter().flatten().map(|output| output.line).collect()
}

/// A chip that has the lines.
struct Found {
    path: PathBuf,
    label: String,
    chip: Chip,
}

impl Found {
    fn chip(wiring: &Wiring) -> Result<Self, BoardError> {
        let wanted = wiring.chip.as_str();
        if wanted.contains('/') {
            return Self::open(Path::new(wanted))?.with_lines(wiring);
        }
        let paths =
            gpiocdev::chip::chips().map_err(|error| BoardError::new("/dev", error.to_string()))?;
        if paths.is_empty() {
            let reason = "this machine has no GPIO chips (/dev/gpiochip*)";
            return Err(BoardError::new("GPIO", reason));
        }
        let highest = all_lines(wiring).into_iter().max().unwrap_or_default();
        let mut seen = Vec::new();
        for path in paths {
            // One that cannot be opened may be the right one: going on could drive the wrong chip.
            let (found, lines) = Self::open(&path)?.counted()?;
            let name = found.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if wanted.is_empty() && highest < lines {
                return Ok(found);
            }
            if wanted == name || wanted == found.label {
                return found.with_lines(wiring);
            }
            seen.push(format!("{name} ({}, {lines} lines)", found.label));
        }
        let what = if wanted.is_empty() {
            format!("no GPIO chip has the line {highest}")
        } else {
            format!("no GPIO chip is called `{wanted}`")
        };
        Err(BoardError::new(what, format!("there are {}", seen.join(", "))))
    }

    fn open(path: &Path) -> Result<Self, BoardError> {
        let shown = path.display().to_string();
        // The library's error does not tell one reason from another.
        if let Err(error) = std::fs::File::open(path) {
            let reason = match error.kind() {
                io::ErrorKind::PermissionDenied => {
                    "no permission; add the user to the group that owns it, mostly `gpio`: \
                     usermod -aG gpio facelatch"
                        .into()
                }
                io::ErrorKind::NotFound => "there is no such chip; see `gpiodetect`".into(),
                _ => error.to_string(),
            };
            return Err(BoardError::new(shown, reason));
        }
        let failed = |error: gpiocdev::Error| BoardError::new(shown.clone(), error.to_string());
        let chip = Chip::from_path(path).map_err(failed)?;
        let label = chip.info().map_err(failed)?.label;
        Ok(Self { path: path.into(), label, chip })
    }

    fn counted(self) -> Result<(Self, u32), BoardError> {
        let lines = self.chip.info().map_err(|error| self.failed(&error))?.num_lines;
        Ok((self, lines))
    }

    fn with_lines(self, wiring: &Wiring) -> Result<Self, BoardError> {
        let (found, lines) = self.counted()?;
        match all_lines(wiring).into_iter().find(|line| *line >= lines) {
            None => Ok(found),
            Some(line) => {
                let what = format!("{}, line {line}", found.path.display());
                Err(BoardError::new(what, format!("the chip has the lines 0 to {}", lines - 1)))
            }
        }
    }

    /// No other program, and no driver of the kernel, has one of the lines.
    fn are_free(&self, lines: &[u32]) -> Result<(), BoardError> {
        for line in lines {
            let info = self.chip.line_info(*line).map_err(|error| self.failed(&error))?;
            if info.used {
                let what = format!("{}, line {line}", self.path.display());
                let holder = if info.consumer.is_empty() { "the kernel" } else { &info.consumer };
                let reason = format!("it is in use by `{holder}`; stop that, or take another line");
                return Err(BoardError::new(what, reason));
            }
        }
        Ok(())
    }

    fn described(&self, wiring: &Wiring) -> String {
        format!(
            "character device: {} ({}), relay at line {}, energised by {}",
            self.path.display(),
            self.label,
            wiring.relay_line,
            if wiring.active_high { "high" } else { "low" }
        )
    }

    fn failed(&self, error: &gpiocdev::Error) -> BoardError {
        BoardError::new(self.path.display().to_string(), error.to_string())
    }
}

impl Board for ChardevBoard {
    fn describe(&self) -> String {
        self.described.clone()
    }

    fn set_relay(&mut self, energised: bool) -> Result<(), BoardError> {
        self.lines
            .set_value(self.wiring.relay_line, level(&self.wiring, energised))
            .map_err(|error| self.failed("setting the relay", &error))
    }

    /// Drivers that cannot read an output back answer what was set.
    fn relay(&mut self) -> Result<bool, BoardError> {
        let read = self.lines.value(self.wiring.relay_line);
        let read = read.map_err(|error| self.failed("reading the relay's line", &error))?;
        Ok(read == level(&self.wiring, true))
    }

    fn inputs(&mut self) -> Result<Inputs, BoardError> {
        let offsets: Vec<u32> = inputs(&self.wiring).map(|input| input.line).collect();
        if offsets.is_empty() {
            return Ok(Inputs::default());
        }
        // One call, so all of one moment.
        let mut values = Values::from_offsets(&offsets);
        self.lines
            .values(&mut values)
            .map_err(|error| self.failed("reading the inputs", &error))?;
        let is_true = |input: InputLine| {
            let closed = values.get(input.line).map(|value| value == Value::Inactive);
            closed.map(|closed| closed == input.closed_means_true)
        };
        Ok(Inputs {
            open: self.wiring.contact.and_then(is_true),
            exit: self.wiring.exit.and_then(is_true),
            tamper: self.wiring.tamper.and_then(is_true),
            bell: self.wiring.bell.and_then(is_true),
        })
    }

    fn data_lines(&mut self) -> Result<Option<Box<dyn DataLines>>, BoardError> {
        let Some(wiegand) = &self.wiring.wiegand else { return Ok(None) };
        let offsets = [wiegand.d0_line, wiegand.d1_line];
        self.chip.are_free(&offsets)?;
        let mut builder = Request::builder();
        builder.on_chip(&self.chip.path).with_consumer(CONSUMER);
        builder.with_lines(&offsets).as_output(Value::Active);
        let lines = builder.request().map_err(|error| self.failed("Wiegand", &error))?;
        Ok(Some(Box::new(RequestedLines { lines, offsets })))
    }
}

impl Drop for ChardevBoard {
    fn drop(&mut self) {
        // Then the kernel takes the line back.
        let _ = self.set_relay(false);
    }
}

struct RequestedLines {
    lines: Request,
    offsets: [u32; 2],
}

impl DataLines for RequestedLines {
    fn pull(&mut self, line: DataLine, low: bool) -> Result<(), BoardError> {
        let offset = match line {
            DataLine::D0 => self.offsets[0],
            DataLine::D1 => self.offsets[1],
        };
        self.lines
            .set_value(offset, Value::from(!low))
            .map_err(|error| BoardError::new(format!("Wiegand, line {offset}"), error.to_string()))
    }
}

struct RequestedSignals {
    lines: Request,
    led: Option<OutputLine>,
    buzzer: Option<OutputLine>,
}

impl SignalLines for RequestedSignals {
    fn show(&mut self, levels: Levels) -> Result<(), BoardError> {
        for (output, on) in [(self.led, levels.led), (self.buzzer, levels.buzzer)] {
            let Some(OutputLine { line, active_high }) = output else { continue };
            self.lines.set_value(line, Value::from(on == active_high)).map_err(|error| {
                BoardError::new(format!("lamp and buzzer, line {line}"), error.to_string())
            })?;
        }
        Ok(())
    }
}

impl Drop for RequestedSignals {
    fn drop(&mut self) {
        let _ = self.show(Levels::default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wiring(chip: &str) -> Wiring {
        Wiring {
            chip: chip.into(),
            relay_line: 17,
            active_high: true,
            lock_type: crate::config::door::LockType::FailSecure,
            contact: None,
            exit: None,
            tamper: None,
            bell: None,
            wiegand: None,
            led: None,
            buzzer: None,
        }
    }

    #[test]
    fn what_is_no_chip_is_refused_with_a_reason() {
        let absent = ChardevBoard::open(&wiring("/dev/no-such-chip")).err().unwrap();
        assert!(absent.reason.contains("no such chip"), "{absent}");
        let wrong = ChardevBoard::open(&wiring("/dev/null")).err().unwrap();
        assert_eq!(wrong.what, "/dev/null");
    }

    #[test]
    fn the_released_level_follows_the_polarity() {
        let high = wiring("");
        let low = Wiring { active_high: false, ..wiring("") };
        assert_eq!((level(&high, false), level(&high, true)), (Value::Inactive, Value::Active));
        assert_eq!((level(&low, false), level(&low, true)), (Value::Active, Value::Inactive));
    }
}
