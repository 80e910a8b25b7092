// SPDX-License-Identifier: Apache-2.0

@testable import MachineFile

extension BadFileTests {
  static let driveCases: [BadFile] = [
    .named(
      "[boot]\norder = \"disk\"",
      "m.toml:3:9: boot.order: must be a list, not a string; accepted: a list of disk, cdrom"),
    .named(
      "[boot]\norder = []",
      "m.toml:3:9: boot.order: the list is empty; accepted: a list of disk, cdrom"),
    .named(
      "[boot]\norder = [\n  \"disk\",\n  \"net\",\n]",
      "m.toml:5:3: boot.order[1]: \"net\" is not a boot medium; accepted: disk, cdrom"),
    .named(
      "[boot]\norder = [\"disk\", \"disk\"]",
      "m.toml:3:18: boot.order[1]: \"disk\" is listed twice; accepted: each once"),
    .named(
      "[boot]\norder = [1]",
      "m.toml:3:10: boot.order[0]: must be a string, not an integer; accepted: a list of disk, "
        + "cdrom"),
    .named(
      "[boot]\nmenu = \"yes\"",
      "m.toml:3:8: boot.menu: must be a boolean, not a string; accepted: true, false"),
    .named(
      "[drive]\nslot = \"ide0.0\"",
      "m.toml:2:2: drive: must be an array of tables, not a table; accepted: [[drive]] with "
        + "slot, image and format"),
    .named(
      "drive = [1]",
      "m.toml:2:10: drive[0]: must be a table, not an integer; accepted: slot, image, format, "
        + "media, readonly, cache, backing, data-file, key, rerror, werror"),
    .named(
      "[[drive]]\nimage = \"a\"\nformat = \"raw\"",
      "m.toml:2:3: drive[0].slot: required but missing; accepted: ide0.0, ide0.1, ide1.0, "
        + "ide1.1"),
    .named(
      "[[drive]]\nslot = \"ide0.0\"\nformat = \"raw\"",
      "m.toml:2:3: drive[0].image: required but missing; accepted: the path of an image"),
    .named(
      "[[drive]]\nslot = \"ide0.0\"\nimage = \"a\"",
      "m.toml:2:3: drive[0].format: required but missing; accepted: raw, qcow2"),
    .named(
      "[[drive]]\nslot = \"ide0.0\"\nimage = \"a\"\nfromat = \"raw\"",
      "m.toml:5:1: drive[0].fromat: unknown key; did you mean format?"),
    .named(
      "[[drive]]\nslot = \"ide2.0\"\nimage = \"a\"\nformat = \"raw\"",
      "m.toml:3:8: drive[0].slot: \"ide2.0\" is not a slot; accepted: ide0.0, ide0.1, ide1.0, "
        + "ide1.1"),
    .named(
      "[[drive]]\nslot = \"ide0.0\"\nimage = \"a\"\nformat = \"vmdk\"",
      "m.toml:5:10: drive[0].format: \"vmdk\" is not an image format; accepted: raw, qcow2"),
    .drive(
      "media = \"floppy\"",
      "m.toml:6:9: drive[0].media: \"floppy\" is not a medium; accepted: disk, cdrom"),
    .drive(
      "media = \"cdrom\"",
      "m.toml:5:10: drive[0].format: a cdrom's image cannot be qcow2; accepted: raw"),
    .named(
      "[[drive]]\nslot = \"ide0.0\"\nimage = \"a\"\nformat = \"raw\"\nkey = \"file:k\"",
      "m.toml:6:1: drive[0].key: a raw image is never encrypted; accepted: with qcow2"),
    .named(
      "[[drive]]\nslot = \"ide0.0\"\nimage = \"a\"\nformat = \"raw\"\ndata-file = \"d\"",
      "m.toml:6:1: drive[0].data-file: a raw image keeps its data in itself; accepted: with qcow2"),
    .drive(
      "data-file = \"./a\"",
      "m.toml:6:13: drive[0].data-file: \"./a\" is already used by drive[0].image; accepted: a "
        + "path that nothing else writes"),
    .drive(
      "key = \"a secret\"",
      "m.toml:6:7: drive[0].key: is not the place of a key; accepted: file:PATH"),
    .named(
      "[[drive]]\nslot = \"ide0.0\"\nimage = \"a\"\nformat = \"raw\"\nwerror = \"panic\"",
      "m.toml:6:10: drive[0].werror: \"panic\" is not a policy; accepted: report, ignore, enospc, "
        + "stop"),
    .named(
      "[[drive]]\nslot = \"ide0.0\"\nimage = \"a\"\nformat = \"raw\"\ncache = \"unsafe\"",
      "m.toml:6:9: drive[0].cache: \"unsafe\" is not a cache mode; accepted: writeback, "
        + "writethrough, none"),
    .named(
      "[[drive]]\nslot = \"ide0.0\"\nmedia = \"cdrom\"\ncache = \"none\"",
      "m.toml:5:9: drive[0].cache: a cdrom is never written; accepted: no cache key"),
    .named(
      "[[drive]]\nslot = \"ide0.0\"\nimage = \"a\"\nformat = \"raw\"\nrerror = \"enospc\"",
      "m.toml:6:10: drive[0].rerror: a read needs no space; accepted: report, ignore, stop"),
    .named(
      "[[drive]]\nslot = \"ide0.0\"\nimage = \"a\"\nmedia = \"cdrom\"\nreadonly = false",
      "m.toml:6:12: drive[0].readonly: a cdrom cannot be written; accepted: true"),
    .drive(
      "readonly = 0",
      "m.toml:6:12: drive[0].readonly: must be a boolean, not an integer; accepted: true, false"),
    .drive(
      "[[drive]]\nslot = \"ide0.0\"\nimage = \"b\"\nformat = \"raw\"",
      "m.toml:7:8: drive[1].slot: \"ide0.0\" is already taken by drive[0]; accepted: ide0.1, "
        + "ide1.0, ide1.1"),
    .drive(
      "[[drive]]\nslot = \"ide0.1\"\nimage = \".//a\"\nformat = \"raw\"",
      "m.toml:8:9: drive[1].image: \".//a\" is already used by drive[0].image; accepted: a path "
        + "that nothing else writes"),
    .drive(
      "[[drive]]\nslot = \"ide0.1\"\nimage = \"a\"\nformat = \"raw\"\nreadonly = true",
      "m.toml:8:9: drive[1].image: \"a\" is already used by drive[0].image; accepted: a path "
        + "that nothing else writes"),
    .named(
      String(repeating: "[[drive]]\nslot = 1\n", count: 5),
      "m.toml:2:3: drive[0].image: required but missing; accepted: the path of an image"),
    .drive(
      "backing = \"any\"",
      "m.toml:6:11: drive[0].backing: \"any\" is not a rule for backing files; accepted: "
        + "same-folder, or a list of paths"),
    .drive(
      "backing = true",
      "m.toml:6:11: drive[0].backing: must be a string or a list, not a boolean; accepted: "
        + "same-folder, or a list of paths"),
    .drive(
      "backing = [\"b\", 2]",
      "m.toml:6:17: drive[0].backing[1]: must be a string, not an integer; accepted: "
        + "same-folder, or a list of paths"),
    .drive(
      "backing = [\"b\", \"\"]",
      "m.toml:6:17: drive[0].backing[1]: the path is empty; accepted: a path"),
    .named(
      "[[drive]]\nslot = \"ide0.0\"\nimage = \"a\"\nformat = \"raw\"\nbacking = [\"b\"]",
      "m.toml:6:1: drive[0].backing: a raw image has no backing file; accepted: with qcow2"),
    .named(
      "[[serial]]",
      "m.toml:2:3: serial[0].backend: required but missing; accepted: stdio, pty, file:PATH, "
        + "unix:PATH, connect:PATH, null"),
    .named(
      "[[serial]]\nbackend = \"tty\"",
      "m.toml:3:11: serial[0].backend: \"tty\" is not a back end; accepted: stdio, pty, "
        + "file:PATH, unix:PATH, connect:PATH, null"),
    .named(
      "[[serial]]\nbackend = \"file:\"",
      "m.toml:3:11: serial[0].backend: the path is empty; accepted: a path"),
    .named(
      "[[serial]]\nbackend = \"stdio\"\n[[serial]]\nbackend = \"stdio\"",
      "m.toml:5:11: serial[1].backend: \"stdio\" is already taken by serial[0].backend; "
        + "accepted: stdio in one place"),
    .named(
      "[[serial]]\nbackend = \"file:x\"\n[[serial]]\nbackend = \"file:./x\"",
      "m.toml:5:11: serial[1].backend: \"./x\" is already used by serial[0].backend; accepted: "
        + "a path that nothing else writes"),
    .named(
      String(repeating: "[[serial]]\nbackend = \"pty\"\n", count: 5),
      "m.toml:10:3: serial: 5 entries; accepted: at most 4"),
    .drive(
      "[[serial]]\nbackend = \"file:a\"",
      "m.toml:7:11: serial[0].backend: \"a\" is already used by drive[0].image; accepted: a "
        + "path that nothing else writes"),
  ]
}
