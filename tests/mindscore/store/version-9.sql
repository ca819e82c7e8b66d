BEGIN TRANSACTION;
CREATE TABLE candidates (
	namespace VARCHAR NOT NULL, 
	model VARCHAR NOT NULL, 
	timestamp_ns INTEGER NOT NULL, 
	continuation_hash VARCHAR NOT NULL, 
	divergence FLOAT NOT NULL, 
	candidate VARCHAR NOT NULL, 
	found_at FLOAT NOT NULL, 
	conversation VARCHAR DEFAULT '' NOT NULL, 
	earlier INTEGER DEFAULT 0 NOT NULL, 
	PRIMARY KEY (namespace, model, timestamp_ns, continuation_hash)
);
INSERT INTO "candidates" VALUES('default','toy',1772532000123456789,'1f281a4e0796fb60a61ac8465ede08be33c78f17d117b218255cec97679d556a',2.5,'{"entry_idx":3,"node_id":"c3","divergence":2.5,"response_text":"Earl Grey, it''s said","prior_context":"[user]\nwhich tea?","context_ids":[1,2,5,9],"bare_context_ids":[5,9],"continuation_ids":[7,8],"alternate_text":null,"alternate_ids":null,"timestamp_ns":1772532000123456789,"noise":null}',1700000600.0,'',1);
INSERT INTO "candidates" VALUES('default','toy',5,'35be322d094f9d154a8aba4733b8497f180353bd7ae7b0a15f90b586b549f28b',2.5,'{"entry_idx":3,"node_id":"c3","divergence":2.5,"response_text":"Earl Grey, it''s said","prior_context":"[user]\nwhich tea?","context_ids":[1,2,5,9],"bare_context_ids":[5,9],"continuation_ids":[3],"alternate_text":null,"alternate_ids":null,"timestamp_ns":5,"noise":null}',1700000780.0,'',1);
INSERT INTO "candidates" VALUES('other','toy',1772532000123456789,'1f281a4e0796fb60a61ac8465ede08be33c78f17d117b218255cec97679d556a',2.5,'{"entry_idx":3,"node_id":"c3","divergence":2.5,"response_text":"Earl Grey, it''s said","prior_context":"[user]\nwhich tea?","context_ids":[1,2,5,9],"bare_context_ids":[5,9],"continuation_ids":[7,8],"alternate_text":null,"alternate_ids":null,"timestamp_ns":1772532000123456789,"noise":null}',1700002280.0,'begins-0123456789abcdef',1);
INSERT INTO "candidates" VALUES('other','toy',5,'35be322d094f9d154a8aba4733b8497f180353bd7ae7b0a15f90b586b549f28b',2.5,'{"entry_idx":3,"node_id":"c3","divergence":2.5,"response_text":"Earl Grey, it''s said","prior_context":"[user]\nwhich tea?","context_ids":[1,2,5,9],"bare_context_ids":[5,9],"continuation_ids":[3],"alternate_text":null,"alternate_ids":null,"timestamp_ns":5,"noise":null}',1700002460.0,'begins-0123456789abcdef',1);
CREATE TABLE cells (
	namespace VARCHAR NOT NULL, 
	model VARCHAR NOT NULL, 
	conversation VARCHAR NOT NULL, 
	"key" VARCHAR NOT NULL, 
	text_hash VARCHAR NOT NULL, 
	node_id VARCHAR NOT NULL, 
	mode VARCHAR NOT NULL, 
	entry_idx INTEGER NOT NULL, 
	divergence FLOAT NOT NULL, 
	signed FLOAT NOT NULL, 
	scored_at FLOAT NOT NULL, 
	noise FLOAT, 
	hold FLOAT, 
	tokens INTEGER, 
	responded_at FLOAT, 
	PRIMARY KEY (namespace, model, conversation, "key", text_hash, node_id, mode)
);
INSERT INTO "cells" VALUES('default','toy','','tea','','c1','full',1,2.5,2.5,1700000420.0,0.125,NULL,NULL,NULL);
INSERT INTO "cells" VALUES('other','toy','begins-0123456789abcdef','tea','5f4dcc3b5aa765d61d8327deb882cf99','c1','full',1,2.5,2.5,1700002100.0,0.125,NULL,NULL,NULL);
INSERT INTO "cells" VALUES('other','toy','begins-0123456789abcdef','tea','5f4dcc3b5aa765d61d8327deb882cf99','c3','full',3,0.0,-0.75,1700002100.0,NULL,NULL,NULL,NULL);
INSERT INTO "cells" VALUES('default','toy','talk-1','tea','5f4dcc3b5aa765d61d8327deb882cf99','c3','full',3,2.5,2.5,1700003000.0,0.125,NULL,NULL,NULL);
INSERT INTO "cells" VALUES('default','toy','talk-1','tea','5f4dcc3b5aa765d61d8327deb882cf99','c5','full',5,0.0,-0.25,1700003000.0,NULL,NULL,NULL,NULL);
INSERT INTO "cells" VALUES('other','toy','talk-1','tea','5f4dcc3b5aa765d61d8327deb882cf99','c3','full',3,2.5,2.5,1700003060.0,0.125,NULL,NULL,NULL);
INSERT INTO "cells" VALUES('other','toy','talk-1','tea','5f4dcc3b5aa765d61d8327deb882cf99','c5','full',5,0.0,-0.25,1700003060.0,NULL,NULL,NULL,NULL);
INSERT INTO "cells" VALUES('default','toy','talk','tea','t1','c3','full',3,2.5,2.5,1700000900.0,0.1,4.0,2,1700000150.0);
INSERT INTO "cells" VALUES('default','toy','talk','tea','t1','c5','full',5,0.0,-0.25,1700000900.0,NULL,0.0,4,NULL);
INSERT INTO "cells" VALUES('default','toy','talk','dog','d1','c3','incremental',3,2.5,2.5,1700000900.0,0.1,NULL,2,1700000150.0);
INSERT INTO "cells" VALUES('default','toy','talk','dog','d1','c3','estimate',3,0.5,0.5,1700000960.0,0.3,NULL,2,NULL);
CREATE TABLE conversation_scores (
	namespace VARCHAR NOT NULL, 
	model VARCHAR NOT NULL, 
	conversation VARCHAR NOT NULL, 
	"key" VARCHAR NOT NULL, 
	text_hash VARCHAR NOT NULL, 
	score FLOAT NOT NULL, 
	scored_at FLOAT NOT NULL, 
	count INTEGER NOT NULL, 
	PRIMARY KEY (namespace, model, conversation, "key", text_hash)
);
INSERT INTO "conversation_scores" VALUES('default','toy','','tea','',3.0,1700000240.0,2);
INSERT INTO "conversation_scores" VALUES('other','toy','begins-0123456789abcdef','tea','5f4dcc3b5aa765d61d8327deb882cf99',3.0,1700001920.0,2);
INSERT INTO "conversation_scores" VALUES('default','toy','talk','dog','d1',1.5,1700000900.0,1);
CREATE TABLE conversations (
	namespace VARCHAR NOT NULL, 
	conversation VARCHAR NOT NULL, 
	source VARCHAR NOT NULL, 
	title VARCHAR NOT NULL, 
	responses INTEGER NOT NULL, 
	memories INTEGER NOT NULL, 
	tokens INTEGER NOT NULL, 
	begun_at FLOAT, 
	ended_at FLOAT, 
	seen_at FLOAT NOT NULL, 
	PRIMARY KEY (namespace, conversation)
);
INSERT INTO "conversations" VALUES('default','talk','talks/one.jsonl','which tea, it''s asked?',2,2,90,1700000100.0,NULL,1700000900.0);
CREATE TABLE ledger (
	namespace VARCHAR NOT NULL, 
	model VARCHAR NOT NULL, 
	round VARCHAR NOT NULL, 
	"key" VARCHAR NOT NULL, 
	text_hash VARCHAR NOT NULL, 
	timestamp_ns INTEGER NOT NULL, 
	continuation_hash VARCHAR NOT NULL, 
	tokens INTEGER NOT NULL, 
	with_memories FLOAT NOT NULL, 
	without_memories FLOAT NOT NULL, 
	reworded VARCHAR NOT NULL, 
	measured_at FLOAT NOT NULL, 
	PRIMARY KEY (namespace, model, round, "key", text_hash, timestamp_ns, continuation_hash)
);
INSERT INTO "ledger" VALUES('default','toy','base','tea','t1',1772532000123456789,'1f281a4e0796fb60a61ac8465ede08be33c78f17d117b218255cec97679d556a',2,-1.5,-4.0,'{"It was asked: {}":-4.25}',1700004660.0);
INSERT INTO "ledger" VALUES('default','toy','job-1','tea','t1',1772532000123456789,'1f281a4e0796fb60a61ac8465ede08be33c78f17d117b218255cec97679d556a',2,-1.5,-4.0,'{"It was asked: {}":-4.25}',1700004660.0);
CREATE TABLE matrix_notes (
	namespace VARCHAR NOT NULL, 
	model VARCHAR NOT NULL, 
	conversation VARCHAR NOT NULL, 
	kind VARCHAR NOT NULL, 
	note VARCHAR NOT NULL, 
	noted_at FLOAT NOT NULL, 
	PRIMARY KEY (namespace, model, conversation, kind)
);
INSERT INTO "matrix_notes" VALUES('default','toy','talk','screen','{"method":"groups","trials":[],"exact":["tea"],"sampled":[],"estimated":["dog"],"not_looked_at":[],"estimates":[],"unit":"sent","spent_tokens":10,"screen_tokens":0,"exact_tokens":100,"error_median":null,"error_p95":null,"rank_correlation":null,"missed":[],"together":null,"remarks":[]}',1700000900.0);
CREATE TABLE memories (
	namespace VARCHAR NOT NULL, 
	"key" VARCHAR NOT NULL, 
	text_hash VARCHAR NOT NULL, 
	model VARCHAR NOT NULL, 
	score FLOAT NOT NULL, 
	weight FLOAT NOT NULL, 
	last_scored FLOAT, 
	count INTEGER NOT NULL, 
	PRIMARY KEY (namespace, "key", text_hash, model)
);
INSERT INTO "memories" VALUES('default','tea','','toy',3.0,2.3,1700000240.0,2);
INSERT INTO "memories" VALUES('default','dog','d1','toy',1.5,1.49999999999999977795e+00,1700000900.0,1);
INSERT INTO "memories" VALUES('default','it''s
odd','','toy',0.5,0.5,NULL,0);
INSERT INTO "memories" VALUES('other','tea','5f4dcc3b5aa765d61d8327deb882cf99','toy',3.0,2.3,1700001920.0,2);
CREATE TABLE memory_texts (
	namespace VARCHAR NOT NULL, 
	"key" VARCHAR NOT NULL, 
	text_hash VARCHAR NOT NULL, 
	text VARCHAR, 
	tokens INTEGER, 
	first_seen FLOAT NOT NULL, 
	last_seen FLOAT NOT NULL, 
	PRIMARY KEY (namespace, "key", text_hash)
);
INSERT INTO "memory_texts" VALUES('default','tea','t1','Drinks Earl Grey.',5,1700000900.0,1700000900.0);
INSERT INTO "memory_texts" VALUES('default','dog','d1',NULL,NULL,1700000900.0,1700000900.0);
CREATE TABLE passes (
	namespace VARCHAR NOT NULL, 
	model VARCHAR NOT NULL, 
	conversation VARCHAR NOT NULL, 
	command VARCHAR NOT NULL, 
	fingerprint VARCHAR NOT NULL, 
	done_at FLOAT NOT NULL, 
	seconds FLOAT NOT NULL, 
	calls INTEGER NOT NULL, 
	prompt_tokens INTEGER NOT NULL, 
	computed_tokens INTEGER, 
	error VARCHAR, 
	PRIMARY KEY (namespace, model, conversation, command)
);
INSERT INTO "passes" VALUES('default','toy','talk','score-full','a/b/2/c/0.0',1700000900.0,1.5,3,120,NULL,NULL);
INSERT INTO "passes" VALUES('default','toy','other','score','a/b/2/c/0.0',1700000900.0,1.5,3,120,60,'not finished');
CREATE TABLE receipts (
	namespace VARCHAR NOT NULL, 
	model VARCHAR NOT NULL, 
	receipt VARCHAR NOT NULL, 
	verified_at FLOAT NOT NULL, 
	PRIMARY KEY (namespace, model)
);
INSERT INTO "receipts" VALUES('default','toy','{"proposed":["tea","it''s"],"kept":["tea"],"kept_for":{"tea":{"place":{"conversation":"talk","title":"which tea?","source":"talks/one.jsonl","node_id":"c3","entry_idx":3,"responded_at":1700000150.0,"shares_file":false},"signed":0.25,"limit":0.05}},"rounds":[{"keys":["tea"],"responses":2,"lost":0.3,"missed":1,"gained":0.0,"freed":0,"rest":0.0,"tokens":0,"worst":[{"place":{"conversation":"talk","title":"which tea?","source":"talks/one.jsonl","node_id":"c3","entry_idx":3,"responded_at":1700000150.0,"shares_file":false},"signed":0.25,"limit":0.05}],"best":[]}],"conversations":1,"calls":2,"prompt_tokens":30,"computed_tokens":null,"unmeasured":["a line"],"is_complete":false,"drops":{"tea":{"text_hash":"t1","instead":null}},"verified_at":1700000950.0}',1700000950.0);
INSERT INTO "receipts" VALUES('other','toy','{"proposed":["tea","it''s"],"kept":["tea"],"kept_for":{"tea":{"place":{"conversation":"talk","title":"which tea?","source":"talks/one.jsonl","node_id":"c3","entry_idx":3,"responded_at":1700000150.0,"shares_file":false},"signed":0.25,"limit":0.05}},"rounds":[{"keys":["tea"],"responses":2,"lost":0.3,"missed":1,"gained":0.0,"freed":0,"rest":0.0,"tokens":0,"worst":[{"place":{"conversation":"talk","title":"which tea?","source":"talks/one.jsonl","node_id":"c3","entry_idx":3,"responded_at":1700000150.0,"shares_file":false},"signed":0.25,"limit":0.05}],"best":[]}],"conversations":1,"calls":2,"prompt_tokens":30,"computed_tokens":null,"unmeasured":["a line"],"is_complete":false,"drops":{"tea":{"text_hash":"t1","instead":null}},"verified_at":1700000950.0}',1700000950.0);
CREATE TABLE removals (
	namespace VARCHAR NOT NULL, 
	model VARCHAR NOT NULL, 
	conversation VARCHAR NOT NULL, 
	fingerprint VARCHAR NOT NULL, 
	removal VARCHAR NOT NULL, 
	measured_at FLOAT NOT NULL, 
	PRIMARY KEY (namespace, model, conversation, fingerprint)
);
INSERT INTO "removals" VALUES('default','toy','talk','f1','{"responses":[{"node_id":"c3","entry_idx":3,"signed":-0.5,"noise":0.1},{"node_id":"c5","entry_idx":5,"signed":0.3,"noise":null}],"tokens":9,"unread":null,"calls":2,"prompt_tokens":30,"computed_tokens":null}',1700000940.0);
INSERT INTO "removals" VALUES('other','toy','talk','f1','{"responses":[{"node_id":"c3","entry_idx":3,"signed":-0.5,"noise":0.1},{"node_id":"c5","entry_idx":5,"signed":0.3,"noise":null}],"tokens":9,"unread":null,"calls":2,"prompt_tokens":30,"computed_tokens":null}',1700000940.0);
CREATE TABLE reviews (
	id INTEGER NOT NULL, 
	namespace VARCHAR NOT NULL, 
	model VARCHAR NOT NULL, 
	timestamp_ns INTEGER NOT NULL, 
	continuation_hash VARCHAR NOT NULL, 
	review VARCHAR NOT NULL, 
	decided_at FLOAT NOT NULL, 
	PRIMARY KEY (id)
);
INSERT INTO "reviews" VALUES(1,'default','toy',5,'35be322d094f9d154a8aba4733b8497f180353bd7ae7b0a15f90b586b549f28b','{"decision":"rejected","answer":"response","decided_at":1700001380.0,"text":null,"ids":null}',1700001380.0);
INSERT INTO "reviews" VALUES(2,'other','toy',5,'35be322d094f9d154a8aba4733b8497f180353bd7ae7b0a15f90b586b549f28b','{"decision":"rejected","answer":"response","decided_at":1700002820.0,"text":null,"ids":null}',1700002820.0);
CREATE TABLE rounds (
	namespace VARCHAR NOT NULL, 
	model VARCHAR NOT NULL, 
	round VARCHAR NOT NULL, 
	adapter VARCHAR NOT NULL, 
	unrelated VARCHAR NOT NULL, 
	measured_at FLOAT NOT NULL, 
	PRIMARY KEY (namespace, model, round)
);
INSERT INTO "rounds" VALUES('default','toy','base','','[[-3.0,4],[-2.5,3]]',1700004000.0);
INSERT INTO "rounds" VALUES('default','toy','job-1','adapters/job-1','[[-3.25,4],[-2.5,3]]',1700004600.0);
CREATE TABLE rows (
	namespace VARCHAR NOT NULL, 
	model VARCHAR NOT NULL, 
	conversation VARCHAR NOT NULL, 
	"key" VARCHAR NOT NULL, 
	fingerprint VARCHAR NOT NULL, 
	"row" VARCHAR NOT NULL, 
	scored_at FLOAT NOT NULL, 
	PRIMARY KEY (namespace, model, conversation, "key")
);
INSERT INTO "rows" VALUES('default','toy','','tea','f1','{"key":"tea","score":2.5,"mode":"full","divergences":[{"entry_idx":1,"node_id":"c1","divergence":2.5,"signed":2.5,"noise":0.125,"tokens":null},{"entry_idx":3,"node_id":"c3","divergence":0.0,"signed":-0.75,"noise":null,"tokens":null}],"hold":null,"fingerprint":"f1"}',1700000420.0);
INSERT INTO "rows" VALUES('other','toy','begins-0123456789abcdef','tea','f1','{"key":"tea","score":2.5,"mode":"full","divergences":[{"entry_idx":1,"node_id":"c1","divergence":2.5,"signed":2.5,"noise":0.125,"tokens":null},{"entry_idx":3,"node_id":"c3","divergence":0.0,"signed":-0.75,"noise":null,"tokens":null}],"hold":null,"fingerprint":"f1"}',1700002100.0);
INSERT INTO "rows" VALUES('default','toy','talk-1','tea','ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff','{"key":"tea","score":2.5,"mode":"full","divergences":[{"entry_idx":3,"node_id":"c3","divergence":2.5,"signed":2.5,"noise":0.125,"tokens":null},{"entry_idx":5,"node_id":"c5","divergence":0.0,"signed":-0.25,"noise":null,"tokens":null}],"hold":[{"entry_idx":3,"node_id":"c3","divergence":0.5,"signed":0.5,"noise":null,"tokens":null}],"fingerprint":"ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff"}',1700003000.0);
INSERT INTO "rows" VALUES('other','toy','talk-1','tea','ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff','{"key":"tea","score":2.5,"mode":"full","divergences":[{"entry_idx":3,"node_id":"c3","divergence":2.5,"signed":2.5,"noise":0.125,"tokens":null},{"entry_idx":5,"node_id":"c5","divergence":0.0,"signed":-0.25,"noise":null,"tokens":null}],"hold":[{"entry_idx":3,"node_id":"c3","divergence":0.5,"signed":0.5,"noise":null,"tokens":null}],"fingerprint":"ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff"}',1700003060.0);
INSERT INTO "rows" VALUES('default','toy','talk','tea','f6','{"key":"tea","score":2.5,"mode":"full","divergences":[{"entry_idx":3,"node_id":"c3","divergence":2.5,"signed":2.5,"noise":0.1,"tokens":null},{"entry_idx":5,"node_id":"c5","divergence":0.0,"signed":-0.25,"noise":null,"tokens":null}],"hold":[{"entry_idx":3,"node_id":"c3","divergence":4.0,"signed":4.0,"noise":null,"tokens":null},{"entry_idx":5,"node_id":"c5","divergence":0.0,"signed":0.0,"noise":null,"tokens":null}],"fingerprint":"f6"}',1700000900.0);
CREATE TABLE runs (
	id INTEGER NOT NULL, 
	namespace VARCHAR NOT NULL, 
	command VARCHAR NOT NULL, 
	model VARCHAR NOT NULL, 
	started_at FLOAT NOT NULL, 
	seconds FLOAT NOT NULL, 
	calls INTEGER NOT NULL, 
	prompt_tokens INTEGER NOT NULL, 
	computed_tokens INTEGER, 
	found INTEGER NOT NULL, 
	considered INTEGER NOT NULL, 
	error VARCHAR, 
	PRIMARY KEY (id)
);
INSERT INTO "runs" VALUES(1,'default','score','toy',1700001500.0,1.5,3,100,NULL,1,2,NULL);
INSERT INTO "runs" VALUES(2,'other','score','toy',1700002940.0,1.5,3,100,NULL,1,2,NULL);
CREATE TABLE sends (
	namespace VARCHAR NOT NULL, 
	timestamp_ns INTEGER NOT NULL, 
	continuation_hash VARCHAR NOT NULL, 
	sink VARCHAR NOT NULL, 
	idempotency_key VARCHAR NOT NULL, 
	position INTEGER NOT NULL, 
	sample VARCHAR NOT NULL, 
	sent_at FLOAT NOT NULL, 
	PRIMARY KEY (namespace, timestamp_ns, continuation_hash, sink)
);
INSERT INTO "sends" VALUES('default',77,'fd223b85f4dc20183fd595f90fc484d67a2242a9de5809cd3e844fa95954fc4a','http','key-default',0,'{"context_ids":[1,2],"continuation_ids":[3,4],"rejected_ids":null,"context":"full","candidate":{"entry_idx":3,"node_id":"c3","divergence":2.5,"response_text":"Earl Grey, it''s said","prior_context":"[user]\nwhich tea?","context_ids":[1,2,5,9],"bare_context_ids":[5,9],"continuation_ids":[3,4],"alternate_text":null,"alternate_ids":null,"timestamp_ns":77,"noise":null},"model":"toy","namespace":"default","decision":null,"answer":"response","context_text":null,"continuation_text":null,"rejected_text":null}',1700001620.0);
INSERT INTO "sends" VALUES('other',77,'fd223b85f4dc20183fd595f90fc484d67a2242a9de5809cd3e844fa95954fc4a','http','key-other',0,'{"context_ids":[1,2],"continuation_ids":[3,4],"rejected_ids":null,"context":"full","candidate":{"entry_idx":3,"node_id":"c3","divergence":2.5,"response_text":"Earl Grey, it''s said","prior_context":"[user]\nwhich tea?","context_ids":[1,2,5,9],"bare_context_ids":[5,9],"continuation_ids":[3,4],"alternate_text":null,"alternate_ids":null,"timestamp_ns":77,"noise":null},"model":"toy","namespace":"other","decision":null,"answer":"response","context_text":null,"continuation_text":null,"rejected_text":null}',1700003060.0);
CREATE TABLE speeds (
	server VARCHAR NOT NULL, 
	model VARCHAR NOT NULL, 
	device VARCHAR NOT NULL, 
	prompt_tokens FLOAT NOT NULL, 
	computed_tokens FLOAT, 
	scoring_s FLOAT NOT NULL, 
	generated_tokens FLOAT NOT NULL, 
	generating_s FLOAT NOT NULL, 
	loading_s FLOAT, 
	measured_at FLOAT NOT NULL, 
	PRIMARY KEY (server, model, device)
);
INSERT INTO "speeds" VALUES('toy','toy','',180.0,NULL,0.75,0.0,0.0,NULL,1700003060.0);
CREATE TABLE trained (
	namespace VARCHAR NOT NULL, 
	timestamp_ns INTEGER NOT NULL, 
	continuation_hash VARCHAR NOT NULL, 
	sink VARCHAR NOT NULL, 
	job_id VARCHAR, 
	trained_at FLOAT NOT NULL, 
	PRIMARY KEY (namespace, timestamp_ns, continuation_hash, sink)
);
INSERT INTO "trained" VALUES('default',6,'','',NULL,1700001020.0);
INSERT INTO "trained" VALUES('default',-9223372036854775808,'','',NULL,1700001080.0);
INSERT INTO "trained" VALUES('default',1772532000123456789,'1f281a4e0796fb60a61ac8465ede08be33c78f17d117b218255cec97679d556a','http','job-1',1700001200.0);
INSERT INTO "trained" VALUES('other',1772532000123456789,'1f281a4e0796fb60a61ac8465ede08be33c78f17d117b218255cec97679d556a','http','job-1',1700002640.0);
CREATE TABLE weights (
	namespace VARCHAR NOT NULL, 
	"key" VARCHAR NOT NULL, 
	model VARCHAR NOT NULL, 
	text_hash VARCHAR NOT NULL, 
	conversation VARCHAR NOT NULL, 
	run VARCHAR NOT NULL, 
	scored_at FLOAT NOT NULL, 
	score FLOAT NOT NULL, 
	weight FLOAT NOT NULL, 
	PRIMARY KEY (namespace, "key", model, text_hash, conversation, run)
);
INSERT INTO "weights" VALUES('default','tea','toy','','','before-runs-1',1700000060.0,2.0,2.0);
INSERT INTO "weights" VALUES('default','tea','toy','','','before-runs-2',1700000240.0,3.0,2.3);
INSERT INTO "weights" VALUES('other','tea','toy','5f4dcc3b5aa765d61d8327deb882cf99','begins-0123456789abcdef','before-runs-3',1700001740.0,2.0,2.0);
INSERT INTO "weights" VALUES('other','tea','toy','5f4dcc3b5aa765d61d8327deb882cf99','begins-0123456789abcdef','before-runs-4',1700001920.0,3.0,2.3);
INSERT INTO "weights" VALUES('default','dog','toy','d1','talk','r6',1700000900.0,1.5,1.49999999999999977795e+00);
CREATE INDEX cells_by_age ON cells (namespace, scored_at);
CREATE INDEX memory_texts_by_age ON memory_texts (namespace, last_seen);
CREATE INDEX conversations_by_age ON conversations (namespace, seen_at);
CREATE INDEX passes_by_age ON passes (namespace, done_at);
CREATE INDEX removals_by_age ON removals (namespace, measured_at);
CREATE INDEX rows_by_age ON rows (namespace, scored_at);
CREATE INDEX candidates_by_age ON candidates (namespace, found_at);
CREATE INDEX weights_by_age ON weights (namespace, scored_at);
CREATE INDEX runs_by_age ON runs (namespace, started_at);
CREATE INDEX reviews_by_candidate ON reviews (namespace, model, timestamp_ns, continuation_hash);
CREATE INDEX matrix_notes_by_age ON matrix_notes (namespace, noted_at);
PRAGMA user_version=9;
COMMIT;
