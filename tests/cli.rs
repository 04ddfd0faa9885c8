//! Tests the command-line interface: help, errors, exit codes, Ctrl-C.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use udass_raw::config::Config;
use udass_raw::run::train::signal::{EXIT_CODE, Stop};

/// Runs the binary in an empty folder, so that it has nothing but its built-in files.
fn run(args: &[&str]) -> Output {
    let folder = TempDir::new().unwrap();
    run_in(folder.path(), args)
}

fn run_in(folder: &Path, args: &[&str]) -> Output {
    let binary = env!("CARGO_BIN_EXE_udass-raw");
    Command::new(binary).args(args).current_dir(folder).output().expect("the binary runs")
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn help_shows_the_commands_and_how_to_begin() {
    let output = run(&["--help"]);
    assert_eq!(output.status.code(), Some(0));
    let text = stdout(&output);
    for expected in
        ["train", "eval", "predict", "report", "prepare", "toy", "udass-raw train gta_vit"]
    {
        assert!(text.contains(expected), "{expected} in\n{text}");
    }
    assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
}

#[test]
fn info_prints_what_a_bug_report_needs() {
    let output = run(&["info"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let text = stdout(&output);
    let version = format!("{} (", env!("CARGO_PKG_VERSION"));
    for expected in [&version, "processor", "instruction set", "driver", "libcudnn", "kernels"] {
        assert!(text.contains(expected), "{expected} in\n{text}");
    }
}

#[test]
fn every_command_explains_itself_with_examples() {
    let options: [(&str, &[&str]); 10] = [
        ("info", &[]),
        ("export", &["--out", "--config", "--size", "--batch", "--dynamic", "--weights"]),
        ("profile", &["--kernel", "--list", "--axis", "--against", "--hot", "--once", "ncu "]),
        (
            "train",
            &["--check", "--set", "--max-iters", "--resume", "--checkpoint", "--device", "--out"],
        ),
        ("eval", &["--checkpoint", "--json", "--csv", "--html", "--set", "--device"]),
        ("predict", &["--checkpoint", "--out", "--logits", "--resize", "--submission", "--split"]),
        ("report", &["--markdown", "--html"]),
        ("prepare", &["gta", "cityscapes"]),
        ("toy", &["--size", "--seed"]),
        ("config", &["show", "list", "diff"]),
    ];
    for (command, expected) in options {
        let output = run(&[command, "--help"]);
        assert_eq!(output.status.code(), Some(0), "{command}");
        let text = stdout(&output);
        assert!(text.contains(&format!("Examples:\n  udass-raw {command} ")), "{text}");
        for option in expected {
            assert!(text.contains(option), "{command} {option} in\n{text}");
        }
    }
}

#[test]
fn a_quiet_command_tells_only_errors_and_a_verbose_one_more() {
    let folder = TempDir::new().unwrap();
    // An old key is read with a warning.
    std::fs::write(folder.path().join("a.toml"), "base = \"toy_vit\"\n[device]\ngraph = false\n")
        .unwrap();
    let show = ["config", "show", "a.toml"];
    let usual = run_in(folder.path(), &show);
    assert!(stderr(&usual).contains("warning: "), "{}", stderr(&usual));
    let quiet = run_in(folder.path(), &[&show[..], &["--quiet"]].concat());
    assert_eq!((quiet.status.code(), stderr(&quiet)), (Some(0), String::new()));
    assert_eq!(stdout(&quiet), stdout(&usual));
    let refused = run_in(folder.path(), &["-q", "train", "no_such_configuration"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(stderr(&refused).starts_with("error: no configuration `no_such_configuration`"));

    let dry = ["profile", "toy_vit", "--set", "data.batch=1", "--list"];
    let verbose = stderr(&run_in(folder.path(), &[&dry[..], &["-v"]].concat()));
    for expected in ["udass-raw ", "--set data.batch=1, ", "preset toy_vit", " s, at most"] {
        assert!(verbose.contains(expected), "{expected} in {verbose}");
    }
    assert_eq!(stderr(&run_in(folder.path(), &dry)), "");
    assert_eq!(run(&["-q", "-v", "info"]).status.code(), Some(2));
}

#[test]
fn colors_are_forced_and_forbidden() {
    let colored = |variables: &[(&str, &str)]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_udass-raw"));
        command.arg("--help").env_remove("NO_COLOR").env_remove("CLICOLOR_FORCE");
        let output = command.envs(variables.iter().copied()).output().unwrap();
        stdout(&output).contains('\u{1b}')
    };
    assert!(!colored(&[]), "not a terminal");
    assert!(colored(&[("CLICOLOR_FORCE", "1")]));
    assert!(!colored(&[("NO_COLOR", "1")]));
}

#[test]
fn every_command_has_a_manual_page_and_completions() {
    let folder = TempDir::new().unwrap();
    let output = run_in(folder.path(), &["generate", "."]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let read = |name: &str| {
        let path = folder.path().join(name);
        std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{name}: {e}"))
    };
    let help = stdout(&run(&["--help"]));
    let commands = help.split_once("Commands:\n").unwrap().1.split("\n\n").next().unwrap();
    let commands: Vec<&str> = (commands.lines())
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .map(|line| line.split_whitespace().next().unwrap())
        .filter(|&name| name != "help")
        .collect();
    assert!(commands.len() >= 12, "{commands:?}");
    assert!(!commands.contains(&"generate"));
    for name in &commands {
        let page = read(&format!("man/udass-raw-{name}.1"));
        assert!(page.contains(&format!(".TH udass-raw-{name} 1")), "{page}");
        assert!(page.contains("Examples:"), "{page}");
    }
    assert!(read("man/udass-raw.1").contains("Exit status:"));
    for file in ["udass-raw.bash", "_udass-raw", "udass-raw.fish"] {
        let text = read(&format!("completions/{file}"));
        for word in commands.iter().copied().chain(["checkpoint", "verbose"]) {
            assert!(text.contains(word), "{word} in {file}");
        }
    }
    // The shell itself accepts its completions.
    let script = format!("source {}", folder.path().join("completions/udass-raw.bash").display());
    let script = format!("{script} && complete -p udass-raw");
    let loaded = Command::new("bash").args(["-c", &script]).output().unwrap();
    assert!(loaded.status.success(), "{}", stderr(&loaded));
}

#[test]
fn an_export_is_refused_before_anything_is_read() {
    let refused = |args: &[&str]| {
        let output = run(&[&["export", "absent", "--config", "toy_vit"], args].concat());
        assert_eq!(output.status.code(), Some(1), "{}", stdout(&output));
        stderr(&output)
    };
    let told = refused(&["--out", "model.pb"]);
    assert!(told.contains("model.pb: the extension selects the format"), "{told}");
    let told = refused(&["--out", "a.onnx", "--size", "100x128"]);
    assert!(told.contains("100x128: each side must be at least 64 pixels and a multiple of 32"));
    let told = refused(&["--out", "a.onnx"]);
    assert!(told.contains("absent"), "{told}");
}

#[test]
fn the_version_is_told() {
    let text = stdout(&run(&["--version"]));
    assert_eq!(text, format!("udass-raw {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn a_configuration_is_shown_with_the_origin_of_every_value() {
    let show = ["config", "show", "gta_cnn", "--method", "dacs", "--set", "data.batch=3"];
    let output = run(&show);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let text = stdout(&output);
    let line = |start: &str| {
        let found = text.lines().find(|line| line.starts_with(start));
        found.unwrap_or_else(|| panic!("{start} in\n{text}")).to_owned()
    };
    assert!(line("batch = 3").ends_with("# --set data.batch=3"), "{}", line("batch = 3"));
    assert!(line("backbone = ").contains("# preset gta_cnn:"), "{}", line("backbone = "));
    assert!(line("flip = ").contains("# preset gta_vit:"), "{}", line("flip = "));
    assert!(line("[[optimizer.param_groups]]").contains("# preset gta_cnn:"));
    assert!(line("out = \"runs/gta_cnn_dacs\"").ends_with("# the configuration's name"));
    // The line is the one that states the value, and what is shown can be used.
    let number: usize = line("flip = ").rsplit(':').next().unwrap().parse().unwrap();
    let preset = std::fs::read_to_string("configs/gta_vit.toml").unwrap();
    assert!(preset.lines().nth(number - 1).unwrap().starts_with("flip = "));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("whole.toml");
    std::fs::write(&path, &text).unwrap();
    let whole = Config::load(path.to_str().unwrap(), &[]).unwrap();
    let method = Some("dacs");
    let set = ["data.batch=3".to_owned()];
    let same = Config::load_with("gta_cnn", method, &set).unwrap();
    assert_eq!(whole, same);

    let list = stdout(&run(&["config", "list"]));
    assert_eq!(list.lines().count(), 24);
    let expected = "HRDA(DAFormer) on MiT-B5, trained with QuadMix";
    assert!(list.lines().next().unwrap().contains(expected), "{list}");
    assert!(list.lines().all(|line| line.split_once("  ").unwrap().1.len() > 10), "{list}");

    let path = path.to_str().unwrap();
    let differing = stdout(&run(&["config", "diff", "gta_cnn", path]));
    assert!(differing.contains("data.batch: 2 -> 3\n"), "{differing}");
    assert!(differing.contains("quadmix.enabled: true -> false\n"), "{differing}");
    assert_eq!(stdout(&run(&["config", "diff", path, path])), "");
}

#[test]
fn a_value_of_several_lines_is_shown_as_one_that_can_be_read() {
    let sets = ["source.root=a\n[data]\nbatch = 7\n# b", "target.root=\"\"\"x\"\"\""];
    let show = ["config", "show", "toy_vit", "--set", sets[0], "--set", sets[1]];
    let text = stdout(&run(&show));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.toml");
    std::fs::write(&path, &text).unwrap();
    // A folder stands for the configuration of its run.
    let read = Config::load(folder.path().to_str().unwrap(), &[]).unwrap();
    let mut expected = Config::load("toy_vit", &sets.map(String::from)).unwrap();
    expected.run.out = "runs/toy_vit".into();
    assert_eq!(read, expected, "{text}");
    assert!(text.contains("# --set source.root=a\\u000a[data]"), "{text}");
    let differing = stdout(&run(&["config", "diff", "toy_vit", folder.path().to_str().unwrap()]));
    assert_eq!(differing.lines().count(), 2, "{differing}");
}

#[test]
fn wrong_usage_ends_with_2() {
    let cases: [(&[&str], &str); 13] = [
        (&[], "Usage: udass-raw"),
        (&["trian"], "tip: a similar subcommand exists: 'train'"),
        (&["train"], "<CONFIG>"),
        (&["eval", "toy_vit"], "--checkpoint <FILE>"),
        (&["train", "toy_vit", "--resume=maybe"], "invalid value 'maybe'"),
        (
            &["train", "toy_vit", "--device", "gpu"],
            "expected auto, host, cuda, or cuda:1 for the second GPU",
        ),
        (&["toy", "d", "--size", "big"], "expected WIDTHxHEIGHT in pixels, as in 2048x1024"),
        (&["predict", "toy_vit", "--checkpoint", "a"], "--out <DIR>"),
        (
            &["predict", "toy_vit", "a.png", "--checkpoint", "a", "--submission", "b"],
            "cannot be used",
        ),
        (&["predict", "gta_vit", "--checkpoint", "a", "--out", "b"], "name the images to segment"),
        (&["predict", "--checkpoint", "a", "--out", "b"], "<IMAGE>"),
        (&["report"], "<RUN>..."),
        (
            &["prepare", "kitti", "d"],
            "[possible values: gta, synthia, cityscapes, acdc, dark_zurich, files]",
        ),
    ];
    for (args, expected) in cases {
        let output = run(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(stderr(&output).contains(expected), "{args:?}:\n{}", stderr(&output));
    }
}

#[test]
fn a_wrong_override_ends_with_1_and_one_block() {
    // The folder is empty, so the preset is the one embedded in the binary.
    let output = run(&["train", "gta_vit", "--set", "data.cropp=512"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        stderr(&output),
        "error: --set data.cropp=512: `data.cropp`: unknown key; did you mean `data.crop`?\n"
    );
    assert_eq!(stdout(&output), "");
}

#[test]
fn a_run_resumes_from_its_own_checkpoint_alone() {
    let output = run(&["train", "toy_vit", "--resume", "--checkpoint", "a"]);
    assert_eq!(output.status.code(), Some(1));
    let told = stderr(&output);
    assert!(told.contains("--resume continues with the run's own checkpoint"), "{told}");
    assert!(told.contains("--resume=auto"), "{told}");
    let output = run(&["train", "toy_vit", "--resume", "--set", "data.toy="]);
    assert_eq!(output.status.code(), Some(1));
    let told = stderr(&output);
    assert!(told.contains("runs/toy_vit: there is no checkpoint to resume here"), "{told}");
}

#[test]
fn flags_reach_the_configuration_as_overrides() {
    // The flag overrides --set, whatever their order.
    let output = run(&["train", "toy_vit", "--set", "run.max_iters=5", "--max-iters", "0"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        stderr(&output),
        "error: --set run.max_iters=0: `run.max_iters`: expected at least 1, got 0\n"
    );
}

#[test]
fn a_mistake_in_a_file_is_one_indented_block() {
    let folder = TempDir::new().unwrap();
    std::fs::write(folder.path().join("my.toml"), "base = \"toy_vit\"\n[dataa]\ncrop = 64\n")
        .unwrap();
    let output = run_in(folder.path(), &["eval", "my.toml", "--checkpoint", "x.safetensors"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        stderr(&output),
        "error: my.toml:2:2: `dataa`: unknown key; did you mean `data`?\n     \
           |\n   2 | [dataa]\n     |  ^^^^^\n"
    );
}

#[test]
fn a_configs_folder_comes_before_the_presets() {
    let folder = TempDir::new().unwrap();
    std::fs::create_dir(folder.path().join("configs")).unwrap();
    let file = folder.path().join("configs/gta_vit.toml");
    std::fs::write(file, "seed = \"one\"\n").unwrap();
    let output = run_in(folder.path(), &["train", "gta_vit"]);
    assert!(stderr(&output).starts_with("error: configs/gta_vit.toml: "), "{}", stderr(&output));
    // The preset toy_vit still inherits from the preset gta_vit, and is therefore complete.
    let output = run_in(folder.path(), &["train", "toy_vit", "--set", "data.flip=7"]);
    let expected = "error: --set data.flip=7: `data.flip`: expected a number from 0 to 1, got 7\n";
    assert_eq!(stderr(&output), expected);
}

#[test]
fn an_unknown_configuration_is_told_with_the_nearest() {
    let output = run(&["train", "gta_vti"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("did you mean `gta_vit`?"), "{}", stderr(&output));
}

// ---- Ctrl-C

/// Child process of the tests below: a run that is in the middle of an iteration.
#[test]
#[ignore = "started by the tests of Ctrl-C"]
fn child_that_listens() {
    let stop = Stop::install(|| eprintln!("stopping after this iteration")).unwrap();
    assert!(Stop::install(|| ()).is_err(), "one listener is enough");
    eprintln!("listening");
    let patience = Instant::now() + Duration::from_secs(60);
    while !stop.asked() && Instant::now() < patience {
        std::thread::sleep(Duration::from_millis(5));
    }
    if std::env::var_os("STUBBORN").is_some() {
        // Simulates an iteration that never ends.
        std::thread::sleep(Duration::from_secs(60));
    }
    eprintln!("ended after its iteration: {}", stop.asked());
}

struct Listener {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStderr>>,
}

impl Listener {
    fn start(stubborn: bool) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["child_that_listens", "--exact", "--ignored", "--nocapture"]);
        if stubborn {
            command.env("STUBBORN", "1");
        }
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut listener = Listener { child, lines };
        listener.wait_for("listening");
        listener
    }

    fn wait_for(&mut self, text: &str) {
        let found = self.lines.any(|line| line.unwrap().contains(text));
        assert!(found, "the child ended without saying: {text}");
    }

    fn interrupt(&self) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-INT", &id]).status().unwrap().success());
    }
}

#[test]
fn the_first_ctrl_c_asks() {
    let mut listener = Listener::start(false);
    listener.interrupt();
    listener.wait_for("stopping after this iteration");
    listener.wait_for("ended after its iteration: true");
    assert!(listener.child.wait().unwrap().success());
}

#[test]
fn the_second_ctrl_c_ends_at_once() {
    let begun = Instant::now();
    let mut listener = Listener::start(true);
    listener.interrupt();
    listener.wait_for("stopping after this iteration");
    listener.interrupt();
    assert_eq!(listener.child.wait().unwrap().code(), Some(EXIT_CODE.into()));
    assert!(begun.elapsed() < Duration::from_secs(30));
}

#[test]
fn a_request_is_shared_by_clones() {
    let stop = Stop::new();
    let other = stop.clone();
    assert!(!other.asked());
    stop.ask();
    assert!(other.asked());
}
