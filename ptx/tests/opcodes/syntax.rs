//! Text that is not understood names its kernel and line.

use crate::kernel;

#[test]
fn unknown_instructions_are_errors() {
    let problem = |body: &str| {
        let text = kernel(body);
        let error = ptx::decode(&text).unwrap_err();
        let line = 1 + text[..text.find(body).unwrap()].matches('\n').count();
        assert_eq!(error.line as usize, line, "{error}");
        assert_eq!(error.kernel.as_deref(), Some("some_f32"));
        error.problem
    };
    assert_eq!(problem("frobnicate.b32 %r2, %r3;"), "`frobnicate.b32` is not supported");
    assert_eq!(problem("add.f64 %rd2, %rd3, %rd4;"), "`add.f64` is not supported");
    assert_eq!(problem("add.rz.f32 %f2, %f3, %f4;"), "`add.rz.f32` is not supported");
    assert_eq!(problem("bar.sync 1;"), "`bar.sync` is not supported");
    assert!(problem("add.s32 %r2, %r3, %rd4;").contains("width"));
    assert!(problem("add.s32 %r2, %r99, %r4;").contains("not declared"));
    assert!(problem("bra NOWHERE;").contains("not supported"));
}

#[test]
fn inlined_lines_are_reported_from_the_inside() {
    let body = ".loc 1 20 5\n.loc 1 9 1, function_name $L__info_string0, inlined_at 1 20 5\n\
                ld.global.u32 %r2, [%rd1+16];";
    match crate::run(body, crate::ONE) {
        Err(ptx::Error::Fault(fault)) => assert_eq!(fault.lines, ["some.cu:9", "some.cu:20"]),
        other => panic!("{other:?}"),
    }
}
