// @ts-check
// The page that asks for a name. Its form works without this module, which shows a refusal in place.

import { submitInPlace } from './form.js';
import './texts.js';

submitInPlace();
