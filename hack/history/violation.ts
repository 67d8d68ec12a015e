/** The promises that a history is held to. */
export type Rule =
  | 'one QEMU for a VM'
  | 'one QEMU for a disk'
  | 'no disk is lost'
  | 'no acknowledged change is lost'
  | 'what is declared is what runs'
  | 'nothing of a deleted VM'
  | 'the witness was awake';

/** A promise that was broken: which one, when, about whom, and what was seen. */
export type Violation = { rule: Rule; t: number; uid?: string; what: string };
