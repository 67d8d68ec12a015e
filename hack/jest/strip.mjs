// Jest transformer: the same type stripping that Node itself does, so tests run the very text that production runs.
import { stripTypeScriptTypes } from 'node:module';

export default {
  process: (source, file) => ({ code: file.endsWith('.ts') ? stripTypeScriptTypes(source) : source }),
};
