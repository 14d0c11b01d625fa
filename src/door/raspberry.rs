//! The pins of a Raspberry Pi, by rppal: their registers are mapped into this process, so an edge
//! costs no system call.
//!
//! Lines are BCM numbers. The kernel does not know who drives a pin this way, so it neither keeps
//! others away nor does anything when this process is killed: the pin stays as it was. What helps
//! then is `facelatch door release`, which systemd runs after every end of the daemon, and the next
//! start. While the pin is an input, as at power-on, a pull resistor holds it: the internal one is
//! set to the level that releases.
//!
//! A stopped daemon leaves the relay's pin an output with the level that releases: a relay board
//! with inputs that are active low may take an undriven line for an order.

use rppal::gpio::Bias;
use rppal::gpio::Error;
use rppal::gpio::Gpio;
use rppal::gpio::InputPin;
use rppal::gpio::IoPin;
use rppal::gpio::Level;
use rppal::gpio::Mode;
use rppal::gpio::OutputPin;
use rppal::gpio::Pin;

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

/// One door at the pins of a Raspberry Pi.
pub struct RaspberryBoard {
    relay: IoPin,
    line: u32,
    energising: Level,
    contact: Option<Switch>,
    exit: Option<Switch>,
    tamper: Option<Switch>,
    bell: Option<Switch>,
    gpio: Gpio,
    /// D0 and D1.
    data: Option<(u32, u32)>,
}

struct Switch {
    pin: InputPin,
    closed_means_true: bool,
}

impl Switch {
    /// A closed circuit pulls the pin low.
    fn is_true(&self) -> bool {
        self.pin.is_low() == self.closed_means_true
    }
}

impl RaspberryBoard {
    /// Takes the pins; the relay is released from the first moment on.
    pub fn open(wiring: &Wiring) -> Result<Self, BoardError> {
        let gpio = gpio()?;
        let energising = Level::from(wiring.active_high);
        let relay = relay(pin(&gpio, wiring.relay_line)?, energising);
        let switch = |input: Option<InputLine>| input.map(|input| switch(&gpio, input)).transpose();
        Ok(Self {
            relay,
            line: wiring.relay_line,
            energising,
            contact: switch(wiring.contact)?,
            exit: switch(wiring.exit)?,
            tamper: switch(wiring.tamper)?,
            bell: switch(wiring.bell)?,
            data: wiring.wiegand.as_ref().map(|wiegand| (wiegand.d0_line, wiegand.d1_line)),
            gpio,
        })
    }
}

/// Whether this is a Raspberry Pi, even one whose pins cannot be used.
pub fn is_raspberry() -> bool {
    !matches!(Gpio::new(), Err(Error::UnknownModel))
}

/// Takes the pins of lamp and buzzer, both off.
pub fn signals(wiring: &Wiring) -> Result<Box<dyn SignalLines>, BoardError> {
    let gpio = gpio()?;
    let output = |output: Option<OutputLine>| {
        let take =
            |output: OutputLine| Ok(Signal::take(pin(&gpio, output.line)?, output.active_high));
        output.map(take).transpose()
    };
    Ok(Box::new(PinSignals { led: output(wiring.led)?, buzzer: output(wiring.buzzer)? }))
}

/// Whether the pins can be driven; drives none.
pub fn examine(wiring: &Wiring) -> Result<String, BoardError> {
    gpio().map(|_| described(wiring.relay_line, Level::from(wiring.active_high)))
}

fn described(line: u32, energising: Level) -> String {
    let level = if energising == Level::High { "high" } else { "low" };
    format!("rppal: pins of a Raspberry Pi, relay at GPIO {line}, energised by {level}")
}

fn gpio() -> Result<Gpio, BoardError> {
    Gpio::new().map_err(|error| {
        let reason = match error {
            Error::UnknownModel => {
                "this is no Raspberry Pi; set door.backend = \"chardev\" or \"auto\"".into()
            }
            Error::PermissionDenied(path) => format!(
                "no permission for {path}; add the user to the group `gpio`: usermod -aG gpio facelatch"
            ),
            other => other.to_string(),
        };
        BoardError::new("rppal", reason)
    })
}

fn pin(gpio: &Gpio, line: u32) -> Result<Pin, BoardError> {
    let wrong = |reason: String| BoardError::new(format!("rppal, GPIO {line}"), reason);
    let number = u8::try_from(line).map_err(|_| wrong("there is no such pin".into()))?;
    gpio.get(number).map_err(|error| wrong(error.to_string()))
}

/// Makes a pin the relay's. Going by way of an input with the right pull, the pin never has the
/// energising level, whatever an earlier process left in its registers.
fn relay(pin: Pin, energising: Level) -> IoPin {
    let mut relay = pin.into_io(Mode::Input);
    relay.set_reset_on_drop(false);
    relay.set_bias(if energising == Level::High { Bias::PullDown } else { Bias::PullUp });
    relay.write(!energising);
    relay.set_mode(Mode::Output);
    relay
}

fn idle_high(pin: Pin) -> OutputPin {
    let mut line = pin.into_output_high();
    line.set_reset_on_drop(false);
    line
}

fn switch(gpio: &Gpio, input: InputLine) -> Result<Switch, BoardError> {
    let pin = pin(gpio, input.line)?.into_input_pullup();
    Ok(Switch { pin, closed_means_true: input.closed_means_true })
}

impl Board for RaspberryBoard {
    fn describe(&self) -> String {
        described(self.line, self.energising)
    }

    fn set_relay(&mut self, energised: bool) -> Result<(), BoardError> {
        let level = if energised { self.energising } else { !self.energising };
        self.relay.write(level);
        // The register shows the pin itself, so a short circuit and another program are seen.
        if self.relay.mode() == Mode::Output && self.relay.read() == level {
            return Ok(());
        }
        // Another program may have made it an input; the next try should find an output.
        self.relay.set_mode(Mode::Output);
        let what = format!("rppal, GPIO {}", self.line);
        let reason =
            "the pin does not take the level: a short circuit, or another program drives it";
        Err(BoardError::new(what, reason))
    }

    fn relay(&mut self) -> Result<bool, BoardError> {
        Ok(self.relay.read() == self.energising)
    }

    fn inputs(&mut self) -> Result<Inputs, BoardError> {
        Ok(Inputs {
            open: self.contact.as_ref().map(Switch::is_true),
            exit: self.exit.as_ref().map(Switch::is_true),
            tamper: self.tamper.as_ref().map(Switch::is_true),
            bell: self.bell.as_ref().map(Switch::is_true),
        })
    }

    fn data_lines(&mut self) -> Result<Option<Box<dyn DataLines>>, BoardError> {
        let Some((d0, d1)) = self.data else { return Ok(None) };
        let lines =
            PinLines { d0: idle_high(pin(&self.gpio, d0)?), d1: idle_high(pin(&self.gpio, d1)?) };
        Ok(Some(Box::new(lines)))
    }
}

impl Drop for RaspberryBoard {
    fn drop(&mut self) {
        self.relay.write(!self.energising);
    }
}

struct PinLines {
    d0: OutputPin,
    d1: OutputPin,
}

impl DataLines for PinLines {
    fn pull(&mut self, line: DataLine, low: bool) -> Result<(), BoardError> {
        let pin = match line {
            DataLine::D0 => &mut self.d0,
            DataLine::D1 => &mut self.d1,
        };
        pin.write(Level::from(!low));
        Ok(())
    }
}

impl Drop for PinLines {
    fn drop(&mut self) {
        self.d0.set_high();
        self.d1.set_high();
    }
}

struct Signal {
    pin: OutputPin,
    active_high: bool,
}

impl Signal {
    fn take(pin: Pin, active_high: bool) -> Self {
        let mut pin = if active_high { pin.into_output_low() } else { pin.into_output_high() };
        // An undriven line may sound a buzzer that is active low.
        pin.set_reset_on_drop(false);
        Self { pin, active_high }
    }
}

struct PinSignals {
    led: Option<Signal>,
    buzzer: Option<Signal>,
}

impl SignalLines for PinSignals {
    fn show(&mut self, levels: Levels) -> Result<(), BoardError> {
        for (signal, on) in [(&mut self.led, levels.led), (&mut self.buzzer, levels.buzzer)] {
            if let Some(signal) = signal {
                signal.pin.write(Level::from(on == signal.active_high));
            }
        }
        Ok(())
    }
}

impl Drop for PinSignals {
    fn drop(&mut self) {
        let _ = self.show(Levels::default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elsewhere_the_error_names_the_other_back_end() {
        if std::fs::read_to_string("/proc/device-tree/model").is_ok_and(|m| m.contains("Raspberry"))
        {
            return;
        }
        let error = gpio().err().unwrap();
        assert!(error.reason.contains("chardev"), "{error}");
    }
}
