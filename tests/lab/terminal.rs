//! A program in a terminal of its own: what a person would see, keys, and whether the terminal is given back.

use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Rows and columns of the terminal.
const SIZE: (u16, u16) = (40, 120);

/// A shell line in a terminal of its own, made by `script` of util-linux; dropped, it goes away as with a lost connection.
pub struct Terminal {
    child: Child,
    /// What a person would see on it.
    seen: Arc<Mutex<vt100::Parser>>,
}

impl Terminal {
    /// Runs a line of the shell; `command` is `script` in its folder and environment.
    pub fn start(mut command: Command, line: &str) -> Terminal {
        let (rows, columns) = SIZE;
        let line = format!(
            "stty rows {rows} cols {columns}; before=$(stty -g); {line}; echo \"code $?\"; \
             [ \"$before\" = \"$(stty -g)\" ] && echo given back"
        );
        command.args(["--quiet", "--return", "--command", &line, "/dev/null"]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("script");
        let mut from = child.stdout.take().expect("a pipe");
        let size = |n: u16| n.try_into().expect("above 0");
        let seen = Arc::new(Mutex::new(vt100::Parser::new(size(SIZE.0), size(SIZE.1), 0)));
        let to = seen.clone();
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(n @ 1..) = from.read(&mut bytes) {
                to.lock().expect("no panic").process(&bytes[..n]);
            }
        });
        Terminal { child, seen }
    }

    /// Types these characters.
    pub fn press(&mut self, keys: &str) {
        let pipe = self.child.stdin.as_mut().expect("a pipe");
        pipe.write_all(keys.as_bytes()).and_then(|()| pipe.flush()).expect("a terminal that reads");
    }

    /// Waits until the terminal shows `what`, and returns all that it shows then.
    #[track_caller]
    pub fn wait_for(&self, what: &str) -> String {
        let began = Instant::now();
        loop {
            let shown = self.seen.lock().expect("no panic").screen().contents();
            if shown.contains(what) {
                return shown;
            }
            assert!(began.elapsed() < Duration::from_secs(60), "no {what:?} in\n{shown}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Presses q, and checks that the program took the whole screen, ends well and gives the terminal back as it was.
    #[track_caller]
    pub fn leave(mut self) {
        assert!(self.seen.lock().expect("no panic").screen().alternate_screen());
        self.press("q");
        self.wait_for("given back");
        self.wait_for("code 0");
        assert!(!self.seen.lock().expect("no panic").screen().alternate_screen());
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Of a terminal that is gone nothing is left to end.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
