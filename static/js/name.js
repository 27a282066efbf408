// The page of the name. Its form works by itself; this says what it was refused for.

import { sendByItself } from './form.js';

sendByItself('routes/set-username');
